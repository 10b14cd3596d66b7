"""The page that a run of task_4.py leaves, on the tiny model."""

import base64
import copy
import hashlib
import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

import task_4
from multitask.common.shell import printable
from multitask.evaluation.evaluate import evaluate_file, evaluation_to_dict
from multitask.inference.predictor import Predictor

VOID = {"meta", "img"}


class Page(HTMLParser):
    """What a browser would make of a page: text, tables by their captions, images; every tag is closed."""

    def __init__(self, path):
        super().__init__()
        self.text, self.images, self.tags, self.tables = "", [], set(), {}
        self.open, self.rows, self.caption = [], [], None
        self.feed(Path(path).read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        if tag == "img":
            self.images.append(attributes)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            assert (tag == "th") == (attributes.get("scope") in ("row", "col"))
        if tag == "caption":
            self.caption, self.rows = "", []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "table":
            self.tables[self.caption] = self.rows

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data
        if "caption" in self.open:
            self.caption += data
        elif {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def table(self, beginning):
        (found,) = [rows for caption, rows in self.tables.items() if caption.startswith(beginning)]
        return found[0], found[1:]


@pytest.fixture
def page(shell, settings_for):
    """Train, and read the run's page."""

    def run(*overrides):
        ended = shell(task_4, *settings_for, *overrides)
        assert ended.status == 0, ended.err
        return Page("run/report.html")

    return run


class TestWhole:
    """With pictures, and rows measured."""

    @pytest.fixture(autouse=True)
    def quick_pages(self):
        """Nothing is left out."""

    def test_it_says_what_the_metrics_and_an_evaluation_of_the_model_say(self, page, tmp_path):
        found = page("training.num_epochs=3", "model.freeze_backbone=false", "training.learning_rate=1e-3")
        *epochs, last = map(json.loads, Path("run/metrics.jsonl").read_text().splitlines())
        head, rows = found.table("Epochs")
        assert head[:5] == ["epoch", "loss, weighted sum", "loss, task A", "loss, task B", "dev: class right"]
        for row, epoch in zip(rows, epochs, strict=True):
            losses = [epoch[name] for name in ("loss", "loss_task_a", "loss_task_b")]
            assert row[:8] == [str(epoch["epoch"]), *_digits([*losses, *epoch["dev"].values()])]
        kept = max(epochs, key=lambda epoch: epoch["dev"]["accuracy"] + epoch["dev"]["entity_f1"])
        assert f"the one of epoch {kept['epoch']}, which is best on dev" in found.text
        a = evaluate_file(
            Predictor.from_pretrained("run/model", "cpu", precision="fp32"),
            "run",
            str(tmp_path / "rows.jsonl"),
        )
        expected = evaluation_to_dict(a)
        _, rows = found.table("Scores")
        for (_, dev, *row), (name, score) in zip(rows, last["test"].items(), strict=True):
            assert score == pytest.approx(expected[name])
            assert row == _digits([expected[name], *expected["intervals"][name]])
            assert [dev] == _digits([kept["dev"][name]])
        for caption, scores in (
            ("Each class", expected["task_a"]["per_class"]),
            ("Each type", expected["task_b"]["per_type"]),
        ):
            rows = [
                [name, *_digits([s["precision"], s["recall"], s["f1"]]), str(s["gold"]), str(s["predicted"])]
                for name, s in scores.items()
            ]
            assert found.table(caption)[1] == rows
        errors = [
            _digits([c["temperature"], c["ece_at_temperature_1"], c["ece"]])
            for c in expected["calibration"].values()
        ]
        assert [row[2:] for row in found.table("Expected calibration")[1]] == errors
        mistakes = [
            [f"{m['file']}:{m['line']}", *_digits([m["probability"]]), m["said"], m["right"], m["sentence"]]
            for m in expected["mistakes"]
        ]
        assert found.table("The surest first")[1] == mistakes and mistakes
        assert sorted(len(row[4]) > 0 for row in found.table("The slowest first")[1]) == [True] * 8
        sums = dict(found.table("Files that it read")[1])
        content = (tmp_path / "rows.jsonl").read_bytes()
        assert sums[str(tmp_path / "rows.jsonl")] == hashlib.sha256(content).hexdigest()
        assert ["training.num_epochs", "3"] in found.table("Settings that are not")[1]

    def test_pictures_are_part_of_it_and_nothing_of_it_runs_or_comes_from_elsewhere(self, page):
        found = page("training.num_epochs=2")
        assert len(found.images) == 2 + 2 + 3 and all(image["alt"] for image in found.images)
        assert not found.tags & {"script", "link", "iframe", "object", "a"}
        for image in found.images:
            kind, _, data = image["src"].partition(";base64,")
            assert kind == "data:image/svg+xml"
            picture = ElementTree.fromstring(base64.b64decode(data))
            assert picture.tag.endswith("}svg")
            for element in picture.iter():
                assert not element.tag.endswith("}script")
                for name, value in element.attrib.items():
                    assert not name.endswith("href") or value.startswith(("#", "data:image/png;base64,"))

    def test_what_can_not_be_drawn_is_said_and_loses_nothing(self, shell, settings_for, monkeypatch):
        for name in ("matplotlib", "matplotlib.figure"):
            monkeypatch.setitem(sys.modules, name, None)
        ended = shell(task_4, *settings_for)
        assert ended.status == 0
        (line,) = ended.err.splitlines()
        assert line.startswith("report.html lacks pictures: ModuleNotFoundError: ") and "matplotlib" in line
        found = Page("run/report.html")
        assert found.images == [] and "could not be drawn" in found.text
        assert found.table("Each class")[1]
        assert "test" in json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])


def _digits(values):
    return [f"{value:.4f}" for value in values]


def test_labels_words_and_paths_of_any_kind_are_text(page, write_rows, rows, tmp_path):
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
    found = page(*files)
    assert not found.tags & {"script", "i", "b"} and found.images == []
    assert {row[0] for row in found.table("Each class")[1]} == set(map(printable, names.values()))
    assert {row[0] for row in found.table("Each type")[1]} == set(kinds.values())
    assert path in dict(found.table("Files that it read")[1])
    assert any("</p><b>anna\\x07" in row[4] for row in found.table("The surest first")[1])


@pytest.mark.parametrize("change", ["gone", "shorter"])
def test_a_file_that_is_another_by_then_costs_the_page_its_sentences_only(
    page, monkeypatch, write_rows, rows, change
):
    path, train = write_rows("test.jsonl", rows), task_4.train

    def then_changed(*arguments):
        train(*arguments)
        Path(path).unlink() if change == "gone" else Path(path).write_text('{"text": "a"}\n')

    monkeypatch.setattr(task_4, "train", then_changed)
    found = page(f"data.test={path}")
    reason = "no such file" if change == "gone" else "changed while it was read"
    assert found.text.count(f"{path}: {reason}") == 2
    assert found.table("The slowest first")[1][0][4] == "–"
    assert "test" in json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])


@pytest.mark.parametrize(
    ("overrides", "shown"),
    [
        (["data.test=null"], "dev"),
        (["data.dev=null"], "test"),
        (["data.test=null", "data.dev=null"], None),
        (["training.task=task_b"], "test"),
        (["training.task=task_a"], "test"),
    ],
)
def test_it_is_of_test_or_else_of_dev_and_of_the_tasks_that_were_trained(page, overrides, shown):
    found = page(*overrides)
    tables = " ".join(found.tables)
    assert ("Each class" in tables) == (shown is not None and "training.task=task_b" not in overrides)
    assert ("Each type" in tables) == (shown is not None and "training.task=task_a" not in overrides)
    assert (f"sentences of {shown}:" in found.text) == (shown is not None)
    assert ("nothing is known of its model" in found.text) == (shown is None)
    if "training.task=task_b" in overrides:
        assert found.table("Epochs")[0][:3] == ["epoch", "loss, task B", "dev: entity F1"]
        assert found.table("Scores")[1][0][1:] == ["–"] * 4


def test_rows_that_were_left_out_do_not_move_the_others(page, write_rows, rows):
    path = write_rows("test.jsonl", [{"tokens": ["a"], "tags": []}, *rows])
    found = page(f"data.test={path}", "data.on_bad_row=skip")
    listed = found.table("The surest first")[1]
    for place, _, _, _, sentence in listed:
        row = rows[int(place.rpartition(":")[2]) - 2]
        words = row.get("tokens") or ["vote"]
        assert words[-1] in sentence
    assert ["test", "8", "1"] in found.table("Rows")[1]
