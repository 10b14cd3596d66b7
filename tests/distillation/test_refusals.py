"""Teachers that can't teach, and probabilities that can't be used."""

import pytest

import task_4
import task_5
from multitask.config.loading import load_settings
from multitask.training.preparation import prepare

SIZES = ["model.num_classes_task_a=null", "model.num_labels_task_b=null"]
TEXT = {"tokens": ["anna", "won"]}


@pytest.fixture
def check(shell, settings_for):
    """A function: settings → what `--check` of task_4.py ends with."""
    return lambda *words: shell(task_4, *settings_for, *SIZES, *words, "--check")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"probabilities": {"sports": 0.5}}, "probabilities sum to 0.5; they must sum to 1"),
        ({"probabilities": {"sports": 1.5}}, "probabilities: 'sports' has 1.5; it must be from 0 to 1"),
        ({"probabilities": {"sports": True}}, "'sports' has true"),
        ({"probabilities": {"sports": "1"}}, "'sports' has '1'"),
        ({"probabilities": [0.5, 0.5]}, "probabilities has a list; a probability for each name is expected"),
        ({"probabilities": {}}, "probabilities has an object"),
        ({"tag_probabilities": [{"O": 1}]}, "2 words, but 1 tag_probabilities"),
        ({"tag_probabilities": {"O": 1}}, "tag_probabilities must be a list of {tag: probability}"),
        ({"tag_probabilities": [{"O": 1}, {"O": 0.2}]}, "tag_probabilities sum to 0.2"),
    ],
)
def test_a_row_with_bad_probabilities_is_named(check, write_rows, rows, row, reason):
    good = {**TEXT, "probabilities": {"sports": 0.25, "politics": 0.75}, "label": "sports"}
    path = write_rows("soft.jsonl", [good, *rows[:4], {**TEXT, **row}])
    ended = check("distillation.teacher=rows", f"data.train={path}")
    assert ended.status == 2 and f"{path}:6: " in ended.err and reason in ended.err, ended.err
    skipped = check("distillation.teacher=rows", f"data.train={path}", "data.on_bad_row=skip")
    assert skipped.status == 0 and "its probabilities are not used" in skipped.err, skipped.err
    assert "are not learned" not in skipped.err
    assert "teacher: rows, for 1 texts of train" in skipped.out
    assert check(f"data.train={path}").status == 0, "without a teacher, nothing of them is read"


def test_a_teacher_that_lacks_a_label_of_train_is_refused(check, trained, write_rows, rows):
    more = [{**TEXT, "label": "weather"}, {"tokens": ["x", "y"], "tags": ["B-ORG", "O"]}]
    path = write_rows("more.jsonl", [*rows, *more])
    ended = check(f"distillation.teacher={trained}", f"data.train={path}")
    assert ended.status == 2
    assert "does not know classes of train: weather" in ended.err
    assert "does not know types of train: ORG" in ended.err
    assert check("training.task=task_b", f"distillation.teacher={trained}", f"data.train={path}").status == 2


def test_labels_that_only_the_teacher_knows_are_named_and_learned(settings_for, trained, write_rows, rows):
    path = write_rows("fewer.jsonl", [row for row in rows if row.get("tags", ["O"])[-1] == "O"][:2])
    config, *rest = [*settings_for, *SIZES, f"distillation.teacher={trained}", f"data.train={path}"]
    prepared = prepare(load_settings(config.removeprefix("--config="), rest))
    assert prepared.labels.types == ("LOC", "PER")
    assert any("also knows types of which train has no type: " in line for line in prepared.warnings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["distillation.teacher=nowhere"], "distillation.teacher: no folder nowhere"),
        (["distillation.teacher=rows"], "no row of data.train has probabilities or tag_probabilities"),
        (["distillation.share=2"], "distillation.share"),
        (["distillation.temperature=0"], "distillation.temperature"),
        (["distillation.teacher=TINY"], "an encoder without trained heads"),
        (
            ["distillation.teacher=ONE", "distillation.share=1"],
            "has not learned task_b, and distillation.share",
        ),
        (["distillation.teacher=ONE", "training.task=task_b"], "has not learned task_b"),
        (
            ["distillation.teacher=TRAINED", "model.num_classes_task_a=7"],
            "is 7, but the data and the teacher have 2",
        ),
    ],
)
def test_what_a_teacher_can_not_do_is_refused(check, shell, settings_for, trained, tiny, settings, message):
    if "ONE" in settings[0]:
        assert shell(task_4, *settings_for, "training.task=task_a", "output_dir=one").status == 0
    names = {"TINY": tiny, "TRAINED": trained, "ONE": "one/model"}
    words = [
        word
        if "=" not in word
        else "=".join([word.split("=")[0], str(names.get(word.split("=")[1], word.split("=")[1]))])
        for word in settings
    ]
    ended = check(*words)
    assert ended.status == 2 and message in ended.err, ended.err


def test_a_teacher_of_one_task_leaves_the_other_to_its_labels(check, shell, settings_for):
    assert shell(task_4, *settings_for, "training.task=task_a", "output_dir=one").status == 0
    ended = check("distillation.teacher=one/model")
    assert ended.status == 0 and "has not learned task_b: its labels alone teach it" in ended.err
    ended = check("distillation.teacher=one/model", "data.tag_scheme=BIO")
    assert ended.status == 0, ended.err


def test_rows_that_a_teacher_leaves_out_are_counted(check, write_rows, rows):
    given = {"probabilities": {"sports": 0.25, "politics": 0.75}}
    path = write_rows("soft.jsonl", [{**row, **given} for row in rows[:3]] + rows[3:])
    words = ["distillation.teacher=rows", f"data.train={path}", "training.task=task_a"]
    ended = check(*words, "distillation.share=1")
    assert f"distillation.share is 1: {len(rows) - 3} of {len(rows)} rows of train have no" in ended.err
    assert "are not learned" not in check(*words).err


def test_an_io_teacher_can_not_teach_bio(check, shell, settings_for):
    assert shell(task_4, *settings_for, "output_dir=io").status == 0
    ended = check("distillation.teacher=io/model", "data.tag_scheme=BIO")
    assert ended.status == 2 and "set data.tag_scheme to IO" in ended.err


def test_tags_with_and_without_prefixes_are_refused(check, write_rows):
    rows = [{**TEXT, "tag_probabilities": [{"B-PER": 1}, {"O": 0.5, "LOC": 0.5}]}]
    ended = check("distillation.teacher=rows", f"data.train={write_rows('mixed.jsonl', rows)}")
    assert (
        ended.status == 2 and "have the tags B-PER and LOC: give all of them prefixes, or none" in ended.err
    )


def test_soft_targets_are_written_as_json_lines_alone(shell, trained):
    asked = ["predict", "anna won", "--soft-targets", "--model", trained]
    assert "--soft-targets writes JSON Lines" in shell(task_5, *asked, "--output", "out.csv").err
    assert "writes no answers" in shell(task_5, *asked, "--accuracy", "0.9").err
    assert '"tokens": ["anna", "won"]' in shell(task_5, *asked).out
