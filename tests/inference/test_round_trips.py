"""Predictions, read back as a corpus, have the words, entities and classes that were predicted."""

import json

import pyarrow.parquet as pq
import pytest
from random_models import TEXTS
from reading import read_corpus

from multitask.data.examples import example_from_text, example_from_words
from multitask.data.texts import UnreadableRow, is_blank
from multitask.inference.writers import output_format

ROWS = [
    *map(example_from_text, TEXTS),
    example_from_text("🙂🙂 anna, 👨‍👩‍👧 won «in» U.S. Paris 🇫🇷!"),
    example_from_words(["anna", "won", "at", "3 p.m."]),
    UnreadableRow("in.txt:9: the text is not valid UTF-8"),
]


@pytest.fixture(scope="module")
def predictions(random_predictor):
    """A prediction for each row, with many entities; None for the unreadable row."""
    found = iter(
        random_predictor.predict_examples([row for row in ROWS if not isinstance(row, UnreadableRow)])
    )
    found = [None if isinstance(row, UnreadableRow) else next(found) for row in ROWS]
    assert sum(len(p.entities) for p in found if p) > 10
    assert "🙂" in found[6].text[: found[6].entities[-1].start]
    return found


def write(path, predictions):
    """Write the rows as `task_5.py predict --output` does."""
    form = output_format(str(path), "runs/one/model")
    content = form.head + b"".join(map(form.render, ROWS, predictions))
    path.write_bytes(content)
    if form.convert:
        lines = path.rename(path.with_name("lines"))
        with open(path, "wb") as file:
            form.convert(lines, file)
    return str(path)


def accept(path):
    """What Label Studio exports after a person has accepted all predictions, with the fields that it adds."""
    tasks = json.loads(path.read_text(encoding="utf-8"))
    for number, task in enumerate(tasks, 1):
        results = [one for prediction in task["predictions"] for one in prediction["result"]]
        results = [{key: value for key, value in one.items() if key != "score"} for one in results]
        given = [{"id": number, "was_cancelled": False, "result": results, "lead_time": 2.5}]
        task |= {"id": number, "annotations": given, "meta": {}, "project": 1}
    path.write_text(json.dumps(tasks))


@pytest.mark.parametrize("name", ["a.jsonl", "a.conll", "a.parquet", "a.labelstudio.json"])
def test_written_rows_are_read_back_as_training_data(tmp_path, predictions, name):
    path = write(tmp_path / name, predictions)
    if name == "a.labelstudio.json":
        accept(tmp_path / name)
    read = read_corpus([path], on_bad_row="skip")
    good = [(row, p) for row, p in zip(ROWS, predictions) if p and not is_blank(row)]
    assert len(read.skipped) == (0 if name == "a.conll" else len(ROWS) - len(good))
    assert not [notice for notice in read.notices if "not read" in notice]
    assert all("not valid UTF-8" in reason or "no words" in reason for reason in read.skipped)
    for found, (row, p) in zip(read.examples, good, strict=True):
        assert found.label == p.label
        if name == "a.conll":  # of words, and not of a text
            assert found.words == row.words
            offsets = row.offsets
        else:
            assert found.text == p.text
            assert found.words == row.words or row.words[-1] == "3 p.m."
            offsets = found.offsets
        spans = [(offsets[s.start][0], offsets[s.end - 1][1], s.label) for s in found.spans]
        assert spans == [(e.start, e.end, e.label) for e in p.entities]


def test_label_studio_gets_tasks_that_its_interface_accepts(tmp_path, predictions):
    """The names of docs/tasks.md's labelling interface, and offsets in code points."""
    write(tmp_path / "a.labelstudio.json", predictions)
    tasks = json.loads((tmp_path / "a.labelstudio.json").read_text(encoding="utf-8"))
    assert len(tasks) == len(ROWS)
    for task, row, p in zip(tasks, ROWS, predictions):
        if p is None:
            assert task == {"data": {"text": "", "error": row.reason}, "predictions": []}
            continue
        assert task["data"] == {"text": p.text}
        (one,) = task["predictions"]
        assert one["model_version"] == "one"
        scores = [item.pop("score") for item in one["result"]]
        assert one.get("score") == min(scores, default=None)
        assert all(item["to_name"] == "text" for item in one["result"])
        assert len({item["id"] for item in one["result"]}) == len(scores)
        classes = [item for item in one["result"] if item["type"] == "choices"]
        assert [(item["from_name"], item["value"]) for item in classes] == [
            ("class", {"choices": [p.label]}) for _ in [0] if p.label is not None
        ]
        spans = [item for item in one["result"] if item["type"] == "labels"]
        assert {item["from_name"] for item in spans} <= {"label"}
        values = [item["value"] for item in spans]
        assert [(v["start"], v["end"], v["text"], v["labels"]) for v in values] == [
            (e.start, e.end, e.text, [e.label]) for e in p.entities
        ]
        assert all(p.text[v["start"] : v["end"]] == v["text"] for v in values)


def test_parquet_has_the_rows_of_json_lines(tmp_path, predictions):
    write(tmp_path / "a.jsonl", predictions)
    lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    found = pq.read_table(write(tmp_path / "a.parquet", predictions)).to_pylist()
    for row in found:
        row["probabilities"] = row["probabilities"] and dict(row["probabilities"])
    assert found == [{**json.loads(line), "error": json.loads(line).get("error")} for line in lines]
