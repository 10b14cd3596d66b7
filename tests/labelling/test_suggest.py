"""task_5.py suggest as the shell runs it."""

import errno
import json

import numpy as np
import pytest
from reading import read_corpus

import task_5
from multitask import Predictor
from multitask.common import atomic_files
from multitask.data.readers import ReadResult
from multitask.labelling.uncertainty import ORDERS

TEXTS = [
    "anna won in paris",
    "the vote",
    "",
    "Paris, anna and the match!",
    "ANNA  won in Paris",  # the same subwords as the first one
    "chip",
    "the vote",
    "won won won",
    "the match " * 30,  # several windows
]
DISTINCT = {"anna won in paris", "the vote", "Paris, anna and the match!", "chip", "won won won", TEXTS[8]}


@pytest.fixture
def texts(put) -> str:
    return put("texts.txt", "\n".join(TEXTS) + "\n")


def rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_every_distinct_text_is_suggested_once_with_the_models_annotation(shell, trained, texts):
    ended = shell(task_5, "suggest", texts, "--model", trained)
    assert ended.status == 0, ended.err
    found = rows(ended.out)
    assert {row["text"] for row in found} == DISTINCT and len(found) == len(DISTINCT)
    assert f"{texts}: 8 texts, of which 2 repeat an earlier one, and 0 are labelled already" in ended.err
    predicted = Predictor.from_pretrained(trained).predict([row["text"] for row in found])
    for row, prediction in zip(found, predicted):
        unsure = row.pop("uncertainty")
        assert row["label"] == prediction.label and 0 < unsure <= 1
        assert [(e["start"], e["end"], e["label"]) for e in row["entities"]] == [
            (e.start, e.end, e.label) for e in prediction.entities
        ]
    fewer = shell(task_5, "suggest", texts, "--model", trained, "--count", 2)
    assert rows(fewer.out) == rows(ended.out)[:2]


def test_the_order_can_be_that_of_the_class_or_of_both_tasks(shell, trained, texts):
    found = {by: rows(shell(task_5, "suggest", texts, "--model", trained, "--by", by).out) for by in ORDERS}
    unsure = {by: {row["text"]: row["uncertainty"] for row in found[by]} for by in ORDERS}
    assert rows(shell(task_5, "suggest", texts, "--model", trained).out) == found["tags"]
    for row in found["class"]:
        p = np.array([*row["probabilities"].values()])
        assert row["uncertainty"] == pytest.approx(-(p * np.log2(p)).sum(), abs=1e-4)
    for text, value in unsure["both"].items():
        ranks = [sum(v <= unsure[by][text] for v in unsure[by].values()) for by in ("class", "tags")]
        assert value == pytest.approx(sum(ranks) / 2 / len(DISTINCT), abs=1e-6)
    for by in ORDERS:
        assert [*unsure[by].values()] == sorted(unsure[by].values(), reverse=True)
    assert len({tuple(by) for by in unsure.values()}) > 1  # the tasks disagree


def test_labelled_texts_are_left_out_and_their_neighbours_come_last(shell, trained, texts, put):
    labelled = put("labelled.jsonl", '{"tokens": ["won", "won", "won"], "label": "sports"}\n')
    ended = shell(task_5, "suggest", texts, "--model", trained, "--labelled", labelled)
    assert {row["text"] for row in rows(ended.out)} == DISTINCT - {"won won won"}
    assert "2 repeat an earlier one, and 1 are labelled already" in ended.err
    again = shell(task_5, "suggest", texts, "--model", trained, "--labelled", texts)
    assert again.status == 2 and "no text to label; of its 8 texts" in again.err


@pytest.mark.parametrize("kind", ["trained", "exported"])
@pytest.mark.parametrize(
    ("form", "name"), [("label-studio", "o.json"), ("doccano", "o.jsonl"), ("jsonl", "o.jsonl")]
)
def test_suggestions_are_read_back_as_annotation(shell, trained, exported, texts, tmp_path, kind, form, name):
    model = {"trained": trained, "exported": exported.folder}[kind]
    ended = shell(task_5, "suggest", texts, "--model", model, "--output", name, "--format", form)
    assert (ended.status, ended.out) == (0, ""), ended.err
    content = (tmp_path / name).read_text(encoding="utf-8")
    if form == "label-studio":  # a person accepts what was suggested
        tasks = json.loads(content)
        for number, task in enumerate(tasks, 1):
            task |= {"id": number, "annotations": [{"result": task["predictions"][0]["result"]}]}
        (tmp_path / name).write_text(json.dumps(tasks))
    read: ReadResult = read_corpus([name])
    assert {example.text for example in read.examples} == DISTINCT
    own = rows(shell(task_5, "suggest", texts, "--model", model).out)
    for example, row in zip(read.examples, own, strict=True):
        assert (example.text, example.label) == (row["text"], row["label"])
        assert example.entities == [(e["start"], e["end"], e["label"]) for e in row["entities"]]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["texts.txt", "--count", "0"], "--count is 0; it must be from 1 to 10,000: train again in between"),
        (["texts.txt", "--count", "10001"], "--count is 10,001; it must be"),
        (["-"], "suggest reads its files twice: give a file, not standard input"),
        (["none.txt"], "none.txt: no such file"),
        (["empty.txt"], "empty.txt: there is no text in it"),
        (["blank.txt"], "blank.txt: there is no text in it"),
        (["texts.txt", "--model", "none"], "no folder none"),
        (["texts.txt", "--output", "o.txt"], "o.txt: for --format jsonl the name ends in .jsonl"),
        (
            ["texts.txt", "--output", "o.jsonl", "--format", "label-studio"],
            "o.jsonl: for --format label-studio",
        ),
        (["texts.txt", "--output", "none/o.jsonl"], "none/o.jsonl: there is no folder none"),
        (["own.jsonl", "--output", "own.jsonl"], "own.jsonl: is read too; write to another file"),
        (["texts.txt", "--output", "old.jsonl"], "old.jsonl: is there already, perhaps with corrections"),
        (["texts.txt", "--labelled", "none.jsonl"], "none.jsonl: no such file"),
    ],
)
def test_what_can_not_be_done_is_one_line_and_leaves_nothing(
    shell, trained, texts, put, tmp_path, arguments, reason
):
    put("empty.txt", ""), put("blank.txt", "\n \n"), put("own.jsonl", '{"text": "anna"}\n')
    put("old.jsonl", "corrected\n")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    model = [] if "--model" in arguments else ["--model", trained]
    ended = shell(task_5, "suggest", *arguments, *model)
    assert (ended.status, ended.out) == (2, "")
    assert f"error: {reason}" in ended.err and "Traceback" not in ended.err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_unreadable_rows_are_reported_and_the_others_suggested(shell, trained, put):
    path = put("some.jsonl", '{"text": "anna"}\n{"label": "sports"}\n{"text": "the vote"}\n')
    ended = shell(task_5, "suggest", path, "--model", trained)
    assert {row["text"] for row in rows(ended.out)} == {"anna", "the vote"}
    assert f"1 rows can't be read:\n{path}:2: a row has a text or tokens" in ended.err


def test_a_file_that_changes_meanwhile_is_refused(shell, trained, texts, tmp_path, monkeypatch):
    from multitask.labelling import suggestions

    combine = suggestions.combine

    def change(*arguments):
        (tmp_path / "texts.txt").write_text("anna\n")
        return combine(*arguments)

    monkeypatch.setattr(suggestions, "combine", change)
    ended = shell(task_5, "suggest", texts, "--model", trained, "--output", "o.jsonl")
    assert (ended.status, ended.err.splitlines()[-1]) == (2, f"error: {texts}: changed while it was read")


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1, "error: No space left on device: "),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_a_full_disk_and_ctrl_c_leave_no_file(
    shell, trained, texts, tmp_path, monkeypatch, error, status, line
):
    disk = atomic_files.disk

    def end():
        raise error

    def fail(kind, path, call, *arguments):
        return disk(kind, path, *((end,) if kind == "write" else (call, *arguments)))

    monkeypatch.setattr(atomic_files, "disk", fail)
    ended = shell(task_5, "suggest", texts, "--model", trained, "--output", "o.jsonl")
    assert ended.status == status and ended.err.splitlines()[-1].startswith(line)
    assert [path.name for path in tmp_path.iterdir()] == ["texts.txt"]


def test_diverse_texts_differ_from_each_other_and_from_the_labelled_ones(shell, trained, put):
    """Of pairs of texts that are nearly equal, one of each pair comes first; the labelled pair comes last."""
    near = [
        "anna won in paris",
        "anna won in paris .",
        "the vote",
        "the vote .",
        "chip match",
        "chip match .",
    ]
    path, labelled = put("near.txt", "\n".join(near)), put("labelled.txt", "the vote !\n")
    own = ("suggest", path, "--model", trained, "--labelled", labelled, "--diverse")
    found = [row["text"] for row in rows(shell(task_5, *own).out)]
    assert sorted(found) == sorted(near)
    kinds = [text.split()[0] for text in found]
    assert {*kinds[:2]} == {"anna", "chip"}
    best = [row["text"] for row in rows(shell(task_5, *own, "--count", 2).out)]
    assert best == found[:2]
