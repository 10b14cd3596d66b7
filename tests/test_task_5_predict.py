"""task_5.py predict as the shell runs it: what it reads and writes."""

import io
import json
import os
import sys

import numpy as np
import pytest

import task_5
from multitask import Predictor
from multitask.data.labels import LabelSpace
from multitask.inference.predictions import Entity, Prediction
from multitask.inference.terminal import terminal_renderer


def read_jsonl(text: str) -> list[dict]:
    return [json.loads(line) for line in text.split("\n")[:-1]]  # U+2028 ends no line


@pytest.mark.parametrize("kind", ["trained", "exported"])
def test_predictor_in_python_gives_the_rows_of_the_command(shell, trained, exported, tmp_path, kind):
    folder = {"trained": trained, "exported": exported.folder}[kind]
    texts = ["anna won in paris", "", 'quote " and \u2028', "Paris, anna and the match!", "the vote " * 40]
    (tmp_path / "in.txt").write_text("\n".join(texts), encoding="utf-8")
    ended = shell(task_5, "predict", "--model", folder, "--input", "in.txt")
    assert ended.status == 0, ended.err
    predictions = Predictor.from_pretrained(folder).predict(texts)
    rows = read_jsonl(ended.out)
    assert rows == [prediction.to_dict() for prediction in predictions]
    for row, prediction in zip(rows, predictions):
        assert row["label"] == prediction.label
        probabilities = prediction.probabilities and {
            n: round(p, 6) for n, p in prediction.probabilities.items()
        }
        assert row["probabilities"] == probabilities and (probabilities is None) == (not row["text"])
        assert [(e["start"], e["end"], e["text"], e["label"]) for e in row["entities"]] == [
            entity[:4] for entity in prediction.entities
        ]
    assert any(row["entities"] for row in rows)


def test_predict_writes_a_row_per_text_in_order(shell, trained, tmp_path):
    texts = ["anna won in paris", "", 'quote " and \u2028', *(f"the vote {i}" for i in range(1100))]
    (tmp_path / "in.txt").write_text("\n".join(texts), encoding="utf-8")
    arguments = ("--model", trained, "--input", "in.txt")
    ended = shell(task_5, "predict", *arguments, "--output", "out.jsonl", "--embeddings", "e.npy")
    assert (ended.status, ended.out) == (0, ""), ended.err
    written = read_jsonl((tmp_path / "out.jsonl").read_text(encoding="utf-8"))
    assert [row["text"] for row in written] == texts
    assert list(written[0]) == ["text", "label", "probabilities", "entities"]
    assert set(written[0]["probabilities"]) == {"sports", "politics"}
    assert np.load("e.npy").shape == (len(texts), 32)
    direct = shell(task_5, "predict", "--model", trained, texts[0], texts[1])
    for row, other in zip(read_jsonl(direct.out), written, strict=False):
        assert row["label"] == other["label"]
        assert row["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
    assert written[1] == {"text": "", "label": None, "probabilities": None, "entities": []}


def test_a_text_that_is_the_name_of_a_file_is_predicted_with_a_hint(shell, trained, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "anna"}\n')
    hint = "'in.jsonl' is a file; this predicts its name, and --input in.jsonl its lines"
    for texts in (["in.jsonl"], ["in.jsonl", "anna"], ["no.jsonl"], ["x" * 5000]):
        ended = shell(task_5, "predict", "--model", trained, *texts)
        assert [row["text"] for row in read_jsonl(ended.out)] == texts
        assert (hint in ended.err.splitlines()) == (texts == ["in.jsonl"])


def test_a_hostile_row_does_not_stop_the_others(shell, trained, tmp_path):
    lines = [
        '{"text": ""}',
        '{"text": "\\ud800 anna"}',
        '{"text": "a\\u0000b"}',
        '{"text": "' + "x" * 1_000_000 + '"}',
        '{"text": "' + "!" * 20_000 + '"}',
        '{"text": "שלום anna 😀 👨‍👩‍👧 ﷽ e\\u0301"}',
        "no JSON",
        '{"text": "anna won in paris"}',
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    arguments = ("predict", "--model", trained, "--input", "in.jsonl")
    ended = shell(task_5, *arguments, "--output", "out.jsonl", "--embeddings", "v.npy")
    assert ended.status == 0
    assert "2 of 8 rows could not be read" in ended.err
    written = read_jsonl((tmp_path / "out.jsonl").read_text(encoding="utf-8"))
    assert [row.get("error") for row in written] == [
        None,
        "in.jsonl:2: the text is not valid UTF-8",
        *[None] * 4,
        "in.jsonl:7: not JSON: Expecting value at column 1",
        None,
    ]
    for line, row in zip(lines, written):
        if "error" not in row:
            assert row["text"] == json.loads(line)["text"]
            assert all(row["text"][e["start"] : e["end"]] == e["text"] for e in row["entities"])
    assert np.isnan(np.load("v.npy")).all(1).tolist() == ["error" in row for row in written]


def test_a_terminal_shows_marked_entities_and_no_control_characters(shell, trained, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    texts = ["anna \x1b[31m paris", "caf\udce9"]
    labels = LabelSpace(("sports", "politics"), ("PER", "LOC"), "IO")
    colours = shell(task_5, "predict", "--model", trained, *texts).out
    assert "\\x1b" in colours
    assert "\x1b[31m" not in colours
    assert "text 2: the text is not valid UTF-8" in colours
    monkeypatch.setenv("NO_COLOR", "1")
    prediction = Prediction(texts[0], "sports", {"sports": 0.25}, [Entity(0, 4, "anna", "PER", 1.0)])
    plain = terminal_renderer(labels)(None, prediction).decode()
    assert plain == "[anna](PER) \\x1b[31m paris  (sports 0.250)\n"
    monkeypatch.delenv("NO_COLOR")
    assert "\x1b[1;36manna\x1b[22m PER\x1b[0m" in terminal_renderer(labels)(None, prediction).decode()


def test_predict_reads_corpus_files_and_standard_input(shell, trained, monkeypatch, tmp_path):
    path = trained.parent.parent / "rows.jsonl"
    rows = read_jsonl(shell(task_5, "predict", "--model", trained, "--input", path).out)
    assert [row["text"] for row in rows][0] == "anna won in paris"
    assert rows[4]["text"] == "Annason won the vote."
    (tmp_path / "stdin").write_text("one\ntwo\n")
    with open(tmp_path / "stdin") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file.buffer))
        saved = os.dup(0)
        os.dup2(file.fileno(), 0)
        try:
            piped = shell(task_5, "predict", "--model", trained, "--input", "-")
        finally:
            os.dup2(saved, 0)
    assert [row["text"] for row in read_jsonl(piped.out)] == ["one", "two"]
