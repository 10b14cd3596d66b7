"""What a report shows of unusual names, missing files, missing splits and skipped rows."""

import copy
import json
from pathlib import Path

import pytest
from report_page import Page

import task_4
from multitask.common.shell import printable
from multitask.evaluation.evaluate import evaluate_file
from multitask.inference.predictor import Predictor

pytest_plugins = ["report_page"]


def test_labels_words_and_paths_are_escaped(report_page, write_rows, rows, tmp_path):
    names = {"sports": "<script>alert(1)</script>", "politics": 'a "b" & \x1b[2J\u202e عربي'}
    kinds = {"PER": "</td><img src=x onerror='y'>", "LOC": "&amp;"}
    rows = copy.deepcopy(rows)
    for row in rows:
        row |= {"label": names[row["label"]]} if "label" in row else {}
        row |= {"tags": [tag[:2] + kinds.get(tag[2:], "") for tag in row["tags"]]} if "tags" in row else {}
        for span in row.get("entities", ()):
            span["label"] = kinds[span["label"]]
    rows[0]["tokens"][0] = "</p><b>anna\x07"
    path = write_rows("<i>&'.jsonl", rows)
    files = [f"data.{split}={json.dumps(path)}" for split in ("train", "dev", "test")]
    page = report_page(*files)
    assert not page.tags & {"script", "i", "b"} and page.images == []
    assert {row[0] for row in page.table("Each class")[1]} == set(map(printable, names.values()))
    assert {row[0] for row in page.table("Each type")[1]} == set(kinds.values())
    assert path in dict(page.table("Files")[1])
    assert any("</p><b>anna\\x07" in row[4] for row in page.table("Highest confidence first")[1])


@pytest.mark.parametrize("change", ["gone", "shorter"])
def test_without_the_test_file_only_the_mistakes_are_missing(
    report_page, monkeypatch, write_rows, rows, change
):
    path, train = write_rows("test.jsonl", rows), task_4.train

    def then_changed(*arguments):
        train(*arguments)
        Path(path).unlink() if change == "gone" else Path(path).write_text('{"text": "a"}\n')

    monkeypatch.setattr(task_4, "train", then_changed)
    page = report_page(f"data.test={path}")
    reason = "no such file" if change == "gone" else "changed while it was read"
    assert page.text.count(f"{path}: {reason}") == 1
    assert "test" in json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])


@pytest.mark.parametrize(
    ("overrides", "split"),
    [
        (["data.test=null"], "dev"),
        (["data.dev=null"], "test"),
        (["data.test=null", "data.dev=null"], None),
        (["training.task=task_b"], "test"),
        (["training.task=task_a"], "test"),
    ],
)
def test_it_shows_test_or_else_dev_and_the_trained_tasks(report_page, overrides, split):
    page = report_page(*overrides)
    tables = " ".join(page.tables)
    assert ("Each class" in tables) == (split is not None and "training.task=task_b" not in overrides)
    assert ("Each type" in tables) == (split is not None and "training.task=task_a" not in overrides)
    assert (f"sentences of {split}:" in page.text) == (split is not None)
    assert ("its model has no scores" in page.text) == (split is None)
    if "training.task=task_b" in overrides:
        assert page.table("Epochs")[0][:3] == ["epoch", "loss, task B", "dev: entity F1"]
        assert page.table("Scores")[1][0][1:] == ["–"] * 4


def test_skipped_rows_do_not_shift_the_line_numbers(report_page, write_rows, rows):
    path = write_rows("test.jsonl", [{"tokens": ["a"], "tags": []}, *rows])
    page = report_page(f"data.test={path}", "data.on_bad_row=skip")
    listed = page.table("Highest confidence first")[1]
    for place, _, _, _, sentence in listed:
        row = rows[int(place.rpartition(":")[2]) - 2]
        words = row.get("tokens") or ["vote"]
        assert words[-1] in sentence
    assert ["test", "8", "1"] in page.table("Rows")[1]


def test_it_shows_what_the_thresholds_of_dev_do_on_test(learned):
    evaluation = evaluate_file(Predictor.from_pretrained(learned, "cpu", precision="fp32"), "", "rows.jsonl")
    head, rows = Page("run/report.html").table("What the thresholds of dev do on test")
    assert head == ["predictions", "wanted", "threshold", "answered", "right"]
    expected = [
        [name, *("–" if value is None else f"{value:.4f}" for value in level)]
        for name, (_, levels) in evaluation.selective().items()
        for level in levels
    ]
    assert rows == expected and len({row[0] for row in rows}) == 2
    assert any(len({answered, right, "–"}) == 3 for *_, answered, right in rows)
