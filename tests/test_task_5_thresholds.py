"""task_5.py predict --accuracy and --precision: what a model answers only where it is sure."""

import csv
import json
import os
import shutil
import signal

import pytest
from conftest import ROOT
from unsure_models import TEXTS, UNSURE, put_thresholds, unsure_copy

import task_4
import task_5
from multitask.common.checksums import verify_checksums
from multitask.encoders.thresholds import FILE, read_thresholds
from multitask.inference import batch_predict
from multitask.inference.predictor import Predictor


def rows_of(ended) -> list[dict]:
    assert ended.status == 0, ended.err
    return [json.loads(line) for line in ended.out.splitlines()]


@pytest.fixture(params=["trained", "exported"])
def folder(request, trained, exported, tmp_path):
    """The random model, or its export, with thresholds in the middle of its predictions."""
    return unsure_copy({"trained": trained, "exported": exported.folder}[request.param], tmp_path / "model")


def test_what_is_less_confident_than_the_threshold_is_left_out(shell, folder):
    everything = rows_of(shell(task_5, "predict", *TEXTS, "--model", folder))
    ended = shell(task_5, "predict", *TEXTS, "--model", folder, "--accuracy", "0.7", "--precision", "0.8")
    thresholds, left_out = read_thresholds(folder), {"label": 0, "entities": 0}
    for row, sure in zip(everything, rows_of(ended), strict=True):
        assert (sure["text"], sure["probabilities"]) == (row["text"], row["probabilities"])
        if row["probabilities"] and max(row["probabilities"].values()) < thresholds.task_a.steps[1].threshold:
            left_out["label"] += 1
            assert sure["label"] is None
        else:
            assert sure["label"] == row["label"]
        kept = [e for e in row["entities"] if e["score"] >= thresholds.task_b.steps[1].threshold]
        left_out["entities"] += len(row["entities"]) - len(kept)
        assert sure["entities"] == kept
    assert left_out["label"] == UNSURE and left_out["entities"] > 0
    lines = ended.err.splitlines()
    assert f"a class below {thresholds.task_a.steps[1].threshold:.4f} is left out" in lines[0]
    assert "on dev 50.0% were kept, and at least 80.0% of these were right" in lines[1]


def test_a_share_that_everything_reaches_leaves_nothing_out(shell, folder):
    everything = rows_of(shell(task_5, "predict", *TEXTS, "--model", folder))
    shares = "--accuracy", "0.5", "--precision", "0.1"
    assert rows_of(shell(task_5, "predict", *TEXTS, "--model", folder, *shares)) == everything


def classes_in(name: str) -> list[str | None]:
    """The classes in a file of predictions, in order; None where it has none."""
    if name.endswith(".csv"):
        with open(name, newline="") as file:
            return [row["label"] or None for row in csv.DictReader(file)]
    if name.endswith(".parquet"):
        import pyarrow.parquet

        return pyarrow.parquet.read_table(name)["label"].to_pylist()
    with open(name) as file:
        content = file.read()
    if name.endswith(".conll"):
        first = [sentence.splitlines()[0] for sentence in content.strip("\n").split("\n\n")]
        return [line.removeprefix("# label = ") if line.startswith("# label") else None for line in first]
    results = [task["predictions"][0]["result"] for task in json.loads(content)]
    choices = [
        [one["value"]["choices"][0] for one in result if "choices" in one["value"]] for result in results
    ]
    return [names[0] if names else None for names in choices]


@pytest.mark.parametrize("name", ["o.csv", "o.conll", "o.parquet", "o.labelstudio.json"])
def test_every_format_leaves_out_the_class_of_an_unsure_text(shell, trained, tmp_path, name):
    if name == "o.parquet":
        pytest.importorskip("pyarrow")
    call = ["predict", *TEXTS, "--model", unsure_copy(trained, tmp_path / "model"), "--accuracy", "0.7"]
    expected = [row["label"] for row in rows_of(shell(task_5, *call))]
    assert shell(task_5, *call, "--output", name).status == 0
    assert classes_in(name) == expected and expected.count(None) == UNSURE + 1  # one text is blank


def test_label_studio_still_sorts_an_unsure_text_first(shell, trained, tmp_path):
    call = ["predict", *TEXTS, "--model", unsure_copy(trained, tmp_path / "model"), "--precision", "0.8"]
    for name, accuracy in (("all.labelstudio.json", "0.4"), ("sure.labelstudio.json", "0.7")):
        assert shell(task_5, *call, "--accuracy", accuracy, "--output", name).status == 0
    everything, sure = (
        [task["predictions"][0].get("score") for task in json.loads((tmp_path / name).read_text())]
        for name in ("all.labelstudio.json", "sure.labelstudio.json")
    )
    assert sure == everything


def test_a_terminal_says_that_the_class_is_unsure(shell, trained, tmp_path, monkeypatch):
    folder = unsure_copy(trained, tmp_path / "model")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    lines = shell(task_5, "predict", *TEXTS, "--model", folder, "--accuracy", "0.7").out.splitlines()
    assert sum(line.endswith("  (unsure)") for line in lines) == UNSURE
    assert lines[1] == ""  # of the blank text


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            ["--accuracy", "0.9"],
            "accuracy 0.9: no threshold reaches it on the 20 sentences of dev; ask for at",
        ),
        (["--precision", "0.81"], "the 20 found entities of dev; ask for at most 0.8"),
        (["--accuracy", "95"], "accuracy is 95; it must be above 0 and below 1, such as 0.95"),
        (["--precision", "1"], "precision is 1; it must be above 0 and below 1, such as 0.95"),
        (["--precision", "nan"], "precision is nan; it must be above 0 and below 1, such as 0.95"),
    ],
)
def test_a_share_that_dev_does_not_reach_is_refused(shell, trained, tmp_path, arguments, reason):
    folder = shutil.copytree(trained, tmp_path / "model")
    put_thresholds(folder, 0.5, 0.5)
    ended = shell(task_5, "predict", "a", "--model", folder, *arguments, "--output", "o.jsonl")
    assert ended.status == 2 and reason in ended.err and len(ended.err.splitlines()) == 1
    assert not list(tmp_path.glob("o.jsonl*"))


def test_a_model_without_thresholds_says_how_to_get_them(shell, trained):
    ended = shell(task_5, "predict", "a", "--model", trained, "--accuracy", "0.9")
    assert ended.status == 2
    assert "has no thresholds for classes; training sets them on a data.dev that is annotated" in ended.err


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"task_a": null}',
        b'{"task_a": null, "task_b": null, "task_b": null}',
        b'{"task_a": null, "task_b": 3}',
        b'{"task_a": null, "task_b": [3]}',
        b'{"task_a": null, "task_b": [3, []]}',
        b'{"task_a": null, "task_b": [3, [[0, 1]]]}',
        b'{"task_a": null, "task_b": [3, [[0, 1, 2]]]}',
        b'{"task_a": null, "task_b": [3, [[0, NaN, 1]]]}',
        b'{"task_a": null, "task_b": ["3", [[0, 1, 1]]]}',
        b'{"task_a": null, "task_b": [3, [["0", 1, 1]]]}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_file_of_thresholds_is_refused(shell, trained, tmp_path, content):
    folder = shutil.copytree(trained, tmp_path / "model")
    (folder / FILE).write_bytes(content)
    ended = shell(task_5, "predict", "a", "--model", folder)
    assert (ended.status, ended.err) == (2, f"error: {folder / FILE}: is damaged\n")


def test_training_sets_the_thresholds_and_an_export_keeps_them(shell, learned, tmp_path):
    pytest.importorskip("onnxruntime")
    assert FILE in verify_checksums(tmp_path / learned)
    thresholds = read_thresholds(learned)
    assert thresholds.task_a.predictions > 0 and thresholds.task_b.predictions > 0
    assert shell(task_5, "export", "out", "--model", learned).status == 0
    assert FILE in verify_checksums(tmp_path / "out")
    assert read_thresholds("out") == thresholds
    assert "answer_only_if" in (tmp_path / "out/README.md").read_text()
    # an export with thresholds can be replaced like any other
    assert shell(task_5, "export", "out", "--model", learned).status == 0


def test_without_dev_there_are_no_thresholds(shell, settings_for, tmp_path):
    assert shell(task_4, *settings_for, "data.dev=null").status == 0
    assert not (tmp_path / "run/model" / FILE).exists()


def test_resume_with_another_share_is_refused(shell, trained, tmp_path, monkeypatch):
    folder = unsure_copy(trained, tmp_path / "model")
    (tmp_path / "in.txt").write_text("\n".join(TEXTS))
    call = ["predict", "--input", "in.txt", "--model", folder, "--output"]
    assert shell(task_5, *call, "whole.jsonl", "--accuracy", "0.7").status == 0
    monkeypatch.setattr(batch_predict, "ROWS", 2)
    predict, batches = Predictor.predict_examples, []

    def signalled(*arguments, **named):
        batches.append(arguments)
        if len(batches) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return predict(*arguments, **named)

    monkeypatch.setattr(Predictor, "predict_examples", signalled)
    assert shell(task_5, *call, "o.jsonl", "--accuracy", "0.7").status == 143
    for shares, option in ([], "accuracy"), (["--accuracy", "0.7", "--precision", "0.7"], "precision"):
        ended = shell(task_5, *call, "o.jsonl", *shares, "--resume")
        assert ended.status == 2 and f"was written with another --{option}; without --resume" in ended.err
    assert shell(task_5, *call, "o.jsonl", "--accuracy", "0.7", "--resume").status == 0
    assert (tmp_path / "o.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_texts_of_a_class_that_training_never_saw_are_seldom_answered(shell, write_rows):
    """Measured with the embedded encoder: a third of the unknown texts, and nine tenths of the others."""
    unknown, splits = "technology", {}
    for split in ("train", "dev", "test"):
        lines = (ROOT / f"corpus/{split}.jsonl").read_text().splitlines()
        splits[split] = [row for row in map(json.loads, lines) if row.get("label")]
    files = {
        split: write_rows(f"{split}.jsonl", [row for row in splits[split] if row["label"] != unknown])
        for split in ("train", "dev")
    }
    settings = [f"--config={ROOT / 'config.yml'}", "model.backbone=all-MiniLM-L6-v2", "data.test=null"]
    settings += [f"data.{split}={path}" for split, path in files.items()]
    settings += ["model.num_classes_task_a=2", "training.task=task_a", "training.num_epochs=5"]
    assert shell(task_4, *settings, "device=cpu", "output_dir=run").status == 0
    call = ["predict", "--input", ROOT / "corpus/test.jsonl", "--model", "run/model", "--accuracy", "0.95"]
    rows = list(zip(rows_of(shell(task_5, *call)), splits["test"], strict=True))
    known = [(row["label"], gold["label"]) for row, gold in rows if gold["label"] != unknown]
    answered = [pair for pair in known if pair[0]]
    answers = [row["label"] for row, gold in rows if gold["label"] == unknown]
    assert len(answers) > 30 and len(answered) > 0.8 * len(known)
    assert sum(label == gold for label, gold in answered) > 0.95 * len(answered)
    assert sum(label is not None for label in answers) < 0.5 * len(answers)
