"""`task_5.py evaluate` as the shell runs it, on tiny models with random heads."""

import json

import pytest
from matplotlib.figure import Figure
from test_corpus_predictions import LABELS, corpus_of, random_predictor, random_rows

import task_5
from multitask.common.errors import InputError
from multitask.data.labels import LabelSpace
from multitask.encoders.saving import save_model
from multitask.evaluation.corpus_predictions import predict_with_confidence
from multitask.evaluation.evaluate import compare_models, evaluate_file
from multitask.evaluation.intervals import METRICS, bootstrap_intervals, compare_means, count_by_row
from multitask.evaluation.metrics import score, scores_table
from multitask.evaluation.mistakes import most_confident_mistakes
from multitask.evaluation.selective import answers

KINDS = {
    "both": LABELS,
    "others": LabelSpace(("y", "w"), ("GPE", "PER"), "IO"),
    "classes": LabelSpace(LABELS.classes, ()),
    "entities": LabelSpace((), LABELS.types, "BIO"),
}
PICTURES = ["confusion_classes.png", "confusion_types.png", "reliability.png", "risk.png"]


@pytest.fixture(scope="module")
def models(tiny, tokenizer, tmp_path_factory):
    """A folder and a Predictor of each kind of model."""
    models = {}
    for seed, (name, labels) in enumerate(KINDS.items()):
        predictor, folder = random_predictor(tiny, tokenizer, labels, seed), tmp_path_factory.mktemp(name)
        config = predictor.runner.model.config
        config.classes = list(labels.classes) or None
        if labels.types:
            config.id2label = dict(enumerate(labels.tags))
            config.label2id = {tag: i for i, tag in enumerate(labels.tags)}
            config.tag_scheme = labels.scheme
        save_model(predictor.runner.model, tiny, folder)
        models[name] = str(folder), predictor
    return models


@pytest.fixture
def empty_plots(monkeypatch):
    """Plots are drawn but saved as empty files: saving takes most of the time."""
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)


@pytest.fixture
def corpus_file(write_rows):
    return write_rows("rows.jsonl", random_rows(40))


def test_evaluate_gives_all_figures_as_json(shell, models, corpus_file, tmp_path):
    folder, predictor = models["both"]
    ended = shell(task_5, "evaluate", corpus_file, "--model", folder, "--json", "--device", "cpu")
    assert ended.status == 0, ended.err
    row, corpus = json.loads(ended.out), corpus_of(corpus_file, predictor)
    predictions = predict_with_confidence(predictor, corpus)
    scores = score(corpus, LABELS, predictions.classes, predictions.tags)
    assert {name: row[name] for name in scores.to_dict()} == scores.to_dict()
    expected = bootstrap_intervals(count_by_row(corpus, LABELS, predictions.classes, predictions.tags))
    assert row["intervals"] == {name: list(expected[name]) for name in METRICS}
    assert [c["temperature"] for c in row["calibration"].values()] == [2, 0.5, 0.5]
    assert all(c["ece"] != c["ece_at_temperature_1"] for c in row["calibration"].values())
    assert row["calibration"]["classes"]["answers"] == scores.task_a.rows
    mistakes = most_confident_mistakes([corpus_file], corpus, LABELS, predictions)
    assert row["mistakes"] == [m.to_dict() for m in mistakes] and len(mistakes) == 20
    assert sorted(path.name for path in (tmp_path / "evaluation").iterdir()) == PICTURES
    assert [line for line in ended.err.splitlines() if line.startswith("picture")] == [
        f"picture: evaluation/{name}" for name in PICTURES
    ]


def test_text_and_json_hold_the_same_figures(shell, empty_plots, models, corpus_file):
    arguments = ("evaluate", corpus_file, "--model", models["both"][0], "--pictures", "a/b")
    row = json.loads(shell(task_5, *arguments, "--json").out)
    ended = shell(task_5, *arguments)
    assert "picture: a/b/reliability.png" in ended.err
    for name in METRICS:
        low, high = row["intervals"][name]
        assert f"{row[name]:.4f}  {low:.4f} to {high:.4f}" in ended.out
    for c in row["calibration"].values():
        assert f"{c['ece_at_temperature_1']:16.4f}  {c['ece']:10.4f}" in ended.out
    for mistake in row["mistakes"]:
        assert f"{mistake['file']}:{mistake['line']}: predicted {mistake['said']}, gold " in ended.out
        assert mistake["sentence"] in ended.out


@pytest.mark.parametrize(("other", "tasks"), [("others", "ab"), ("classes", "a"), ("entities", "b")])
def test_two_models_are_compared_in_the_tasks_that_both_have_learned(
    shell, empty_plots, models, corpus_file, other, tasks
):
    arguments = ("evaluate", corpus_file, "--model", models["both"][0], "--against", models[other][0])
    ended = shell(task_5, *arguments, "--json")
    assert ended.status == 0, ended.err
    against, counts = json.loads(ended.out)["against"], []
    for name in ("both", other):
        _, predictor = models[name]
        corpus = corpus_of(corpus_file, predictor)
        predictions = predict_with_confidence(predictor, corpus)
        classes, tags = (
            predictions.classes if "a" in tasks else None,
            predictions.tags if "b" in tasks else None,
        )
        counts.append(count_by_row(corpus, predictor.labels, classes, tags))
    assert against.pop("model") == models[other][0]
    expected = compare_means(*([rows] for rows in counts))
    for name in METRICS:
        assert against[name] == (
            expected[name] and {**expected[name]._asdict(), "verdict": expected[name].verdict}
        )
    assert (against["accuracy"] is None, against["entity_f1"] is None) == ("a" not in tasks, "b" not in tasks)
    message = {
        "a": "task_b is not compared",
        "b": "task_a is not compared",
        "ab": f"{models[other][0]}: warning",
    }
    assert message[tasks] in ended.err
    text = shell(task_5, *arguments).out
    for name in METRICS:
        if c := against[name]:
            assert (
                f"{c['first']:.4f}  {c['second']:.4f}" in text and f"  {c['p']:.4f}  {c['verdict']}" in text
            )


def test_models_without_a_common_task_and_rows_without_annotation_are_errors(shell, models, write_rows):
    rows = write_rows("rows.jsonl", random_rows(8))
    plain = write_rows("plain.jsonl", [{"text": "anna won", "label": "x"}, {"text": "in paris"}])
    classes, entities = models["classes"][0], models["entities"][0]
    for arguments, reason in [
        ((rows, "--model", classes, "--against", entities), "no task in common"),
        ((plain, "--model", entities), f"no row is annotated for what {entities} has learned"),
        ((plain, "--model", classes, "--against", entities), "no row is annotated for what"),
        ((plain, "--model", classes, "--against", "nowhere"), "error: no folder nowhere"),
        ((plain, "--model", classes, "--pictures", plain), "plain.jsonl is a file"),
        ((plain, "--model", classes, "--pictures", f"{plain}/a"), "plain.jsonl is a file"),
    ]:
        ended = shell(task_5, "evaluate", *arguments)
        assert (ended.status, ended.out) == (2, ""), arguments
        assert reason in ended.err.splitlines()[-1]


def test_two_models_are_not_compared_on_different_rows(models, write_rows):
    _, predictor = models["both"]
    rows = random_rows(4)
    first, second = (
        evaluate_file(predictor, "m", write_rows(name, rows[:n]))
        for name, n in (("a.jsonl", 4), ("b.jsonl", 3))
    )
    with pytest.raises(InputError, match="a.jsonl: changed while it was read"):
        compare_models(first, second)


@pytest.mark.parametrize(
    ("model", "rows"),
    [
        ("both", [{"text": "anna won", "label": "x", "entities": []}]),
        ("both", [{"text": "anna won", "label": "x"}, {"text": "in paris"}]),
        ("both", [{"tokens": ["anna"], "tags": ["B-PER"]}]),
        ("both", [{"tokens": ["anna"], "tags": ["B-weather"], "label": "rain"}]),
        ("classes", random_rows(6)),
        ("entities", random_rows(6)),
    ],
)
def test_small_and_partly_annotated_corpora_are_evaluated(
    shell, empty_plots, models, write_rows, tmp_path, model, rows
):
    folder, predictor = models[model]
    path = write_rows("rows.jsonl", rows)
    ended = shell(task_5, "evaluate", path, "--model", folder, "--against", folder)
    assert ended.status == 0, ended.err
    corpus = corpus_of(path, predictor)
    predictions = predict_with_confidence(predictor, corpus)
    scores = score(corpus, predictor.labels, predictions.classes, predictions.tags)
    assert ended.out.startswith(scores_table(scores))
    assert (
        "too few rows for reliable intervals (below 30)" in ended.out and "too few rows to tell" in ended.out
    )
    drawn = {"confusion_classes.png": scores.task_a, "confusion_types.png": scores.task_b}
    drawn["risk.png"] = any(not found.correct.all() for found in answers(predictions, corpus).values())
    pictures = {path.name for path in (tmp_path / "evaluation").iterdir()}
    assert pictures == {"reliability.png", *(name for name, is_drawn in drawn.items() if is_drawn)}
