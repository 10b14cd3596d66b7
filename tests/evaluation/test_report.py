"""The report of a run of task_4.py with its pictures, on the tiny model."""

import base64
import hashlib
import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from report_page import Page

import task_4
from multitask.evaluation.evaluate import evaluate_file, evaluation_to_dict
from multitask.inference.predictor import Predictor

pytest_plugins = ["report_page"]


class TestWhole:
    """Reports with pictures."""

    @pytest.fixture(autouse=True)
    def quick_pages(self):
        """Overrides the fixture that leaves pictures out."""

    def test_figures_equal_those_of_metrics_and_of_an_evaluation(self, report_page, tmp_path):
        page = report_page(
            "training.num_epochs=3", "model.freeze_backbone=false", "training.learning_rate=1e-3"
        )
        *epochs, last = map(json.loads, Path("run/metrics.jsonl").read_text().splitlines())
        head, rows = page.table("Epochs")
        assert head[:5] == [
            "epoch",
            "loss, weighted sum",
            "loss, task A",
            "loss, task B",
            "dev: accuracy of classes",
        ]
        for row, epoch in zip(rows, epochs, strict=True):
            losses = [epoch[name] for name in ("loss", "loss_task_a", "loss_task_b")]
            assert row[:8] == [str(epoch["epoch"]), *_digits([*losses, *epoch["dev"].values()])]
        best = max(epochs, key=lambda epoch: epoch["dev"]["accuracy"] + epoch["dev"]["entity_f1"])
        assert f"after epoch {best['epoch']}, the best on dev" in page.text
        a = evaluate_file(
            Predictor.from_pretrained("run/model", "cpu", precision="fp32"),
            "run",
            str(tmp_path / "rows.jsonl"),
        )
        expected = evaluation_to_dict(a)
        _, rows = page.table("Scores")
        for (_, dev, *row), (name, score) in zip(rows, last["test"].items(), strict=True):
            assert score == pytest.approx(expected[name])
            assert row == _digits([expected[name], *expected["intervals"][name]])
            assert [dev] == _digits([best["dev"][name]])
        _check_details(page, expected)
        _check_curves(page, expected)
        sums = dict(page.table("Files")[1])
        content = (tmp_path / "rows.jsonl").read_bytes()
        assert sums[str(tmp_path / "rows.jsonl")] == hashlib.sha256(content).hexdigest()
        assert ["training.num_epochs", "3"] in page.table("Settings that differ")[1]

    def test_pictures_are_embedded_and_nothing_is_run_or_loaded(self, report_page):
        page = report_page("training.num_epochs=2")
        # curves of loss and scores, matrices, reliability, and risk: no entities are found
        assert len(page.images) == 2 + 2 + 3 + 1 and all(image["alt"] for image in page.images)
        assert not page.tags & {"script", "link", "iframe", "object", "a"}
        for image in page.images:
            kind, _, data = image["src"].partition(";base64,")
            assert kind == "data:image/svg+xml"
            picture = ElementTree.fromstring(base64.b64decode(data))
            assert picture.tag.endswith("}svg")
            for element in picture.iter():
                assert not element.tag.endswith("}script")
                for name, value in element.attrib.items():
                    assert not name.endswith("href") or value.startswith(("#", "data:image/png;base64,"))

    def test_pictures_that_can_not_be_drawn_are_reported_and_nothing_else_is_lost(
        self, shell, settings_for, monkeypatch
    ):
        for name in ("matplotlib", "matplotlib.figure"):
            monkeypatch.setitem(sys.modules, name, None)
        ended = shell(task_4, *settings_for)
        assert ended.status == 0
        (line,) = [line for line in ended.err.splitlines() if not line.startswith("warning: ")]
        assert line.startswith("report.html lacks pictures: ModuleNotFoundError: ") and "matplotlib" in line
        page = Page("run/report.html")
        assert page.images == [] and "could not be drawn" in page.text
        assert page.table("Each class")[1]
        assert "test" in json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])


def _check_details(page: Page, expected: dict) -> None:
    """The tables of labels, calibration and mistakes have the figures of the evaluation `expected`."""
    for caption, scores in (
        ("Each class", expected["task_a"]["per_class"]),
        ("Each type", expected["task_b"]["per_type"]),
    ):
        rows = [
            [name, *_digits([s["precision"], s["recall"], s["f1"]]), str(s["gold"]), str(s["predicted"])]
            for name, s in scores.items()
        ]
        assert page.table(caption)[1] == rows
    errors = [
        _digits([c["temperature"], c["ece_at_temperature_1"], c["ece"]])
        for c in expected["calibration"].values()
    ]
    assert [row[2:] for row in page.table("Expected calibration")[1]] == errors
    mistakes = [
        [f"{m['file']}:{m['line']}", *_digits([m["probability"]]), m["said"], m["right"], m["sentence"]]
        for m in expected["mistakes"]
    ]
    assert page.table("Highest confidence first")[1] == mistakes and mistakes


def _check_curves(page: Page, expected: dict) -> None:
    """There is a curve of the risk for each task with wrong predictions."""
    curves = [image["alt"] for image in page.images if image["alt"].startswith("Risk of ")]
    tasks = [name for name, of_task in expected["selective"].items() if of_task["aurc"]]
    assert [alt.split(" by coverage")[0] for alt in curves] == [f"Risk of {name}" for name in tasks] and tasks


def _digits(values):
    return [f"{value:.4f}" for value in values]
