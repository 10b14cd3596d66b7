"""Rows of Hugging Face's datasets, as JSON Lines and as Parquet."""

import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from conftest import ROOT
from corpus_files import content, corpus_refusal, lines, read, skipped

from multitask.data.formats.files import read_records, source_files
from multitask.data.texts import read_rows

WORDS = ["Mina", "met", "Orbis"]
TAGS = ["B-PER", "O", "B-ORG"]
OWN = {"tokens": WORDS, "tags": TAGS, "label": "news"}
TAG_NAMES, CLASS_NAMES = ["O", "B-PER", "I-PER", "B-ORG"], ["sports", "news"]
NUMBERS = {"tokens": WORDS, "ner_tags": [1, 0, 3], "label": 1}
CLASS = {"names": CLASS_NAMES, "_type": "ClassLabel"}
TAG = {"names": TAG_NAMES, "_type": "ClassLabel"}
FEATURES = {"ner_tags": {"feature": TAG, "_type": "List"}, "label": CLASS}


@pytest.mark.parametrize(
    ("row", "same", "names"),
    [
        ({"id": "0", "tokens": WORDS, "ner_tags": TAGS, "intent": "news"}, OWN,
         ": ner_tags as tags, intent as label"),
        ({"words": WORDS, "labels": TAGS, "category": "news"}, OWN,
         ": words as tokens, labels as tags, category as label"),
        ({"words": WORDS, "tags": TAGS, "class": "news"}, OWN, ": words as tokens, class as label"),
        ({"text": "Mina left", "sentence_label": "x"}, {"text": "Mina left", "label": "x"},
         ": sentence_label as label"),
        ({"text": "Mina left", "labels": "x"}, {"text": "Mina left", "label": "x"}, ": labels as label"),
    ],
)  # fmt: skip
def test_other_names_of_columns_are_read_and_named(put, row, same, names):
    path = put("a.jsonl", lines([row, row]))
    result = read(path)
    assert content(result.examples) == content(read(put("own.jsonl", lines([same, same]))).examples)
    assert result.notices == [f"{path}:1: read as a Hugging Face dataset{names} (2 rows; this is the first)"]


def test_own_names_come_first_and_the_rest_is_named(put):
    row = {**OWN, "ner_tags": ["O"] * 3, "intent": "sports", "pos_tags": [1, 2, 3]}
    result = read(put("a.jsonl", lines([row])))
    assert content(result.examples) == content(read(put("own.jsonl", lines([OWN]))).examples)
    assert len([notice for notice in result.notices if "is not read" in notice]) == 3


def test_two_names_of_the_label_spoil_the_row(put):
    path = put("a.jsonl", lines([OWN, {"tokens": WORDS, "intent": "a", "class": "b"}]))
    assert skipped(path) == ["2: 'intent' and 'class' may both be the class; keep one of them"]


@pytest.mark.parametrize("tags", [{"feature": TAG, "_type": "Sequence"}, [TAG], TAG])
def test_dataset_info_beside_the_file_names_the_numbers(put, tags):
    path = put("a.jsonl", lines([NUMBERS, {**NUMBERS, "label": -1}]))
    info = Path(put("dataset_info.json", json.dumps({"features": {**FEATURES, "ner_tags": tags}})))
    assert [row for _, row in read_records(path)] == [OWN, {"tokens": WORDS, "tags": TAGS}]
    assert source_files(path) == [Path(path), info]
    info.unlink()
    assert source_files(path) == [Path(path)]


def test_numbers_without_names_are_one_error(put):
    path = put("a.jsonl", lines([NUMBERS] * 30))
    wanted = "put the dataset's dataset_info.json beside the file; its features give the names of ner_tags"
    reason = f"ner_tags must be a list of names, or of numbers with names: {wanted}"
    assert corpus_refusal(path) == f"{path}:1: {reason}"
    path = put("b.jsonl", lines([{"text": "a", "label": 0}] * 30))
    assert corpus_refusal(path).startswith(f"{path}:1: label is 0; it must be a name, or a number with a ")
    # beside names, a number is a slip in one row
    path = put("c.jsonl", lines([OWN, NUMBERS]))
    assert skipped(path) == [f"2: {reason}"]
    assert [row.text for row in read_rows(path)] == [" ".join(WORDS)] * 2


@pytest.mark.parametrize("row", [{**NUMBERS, "label": 2}, {**NUMBERS, "ner_tags": [0, 9, 0]}])
def test_number_beyond_the_names_spoils_its_row(put, row):
    put("dataset_info.json", json.dumps({"features": FEATURES}))
    (reason,) = skipped(put("a.jsonl", lines([NUMBERS, row])))
    assert reason.startswith("2: ") and "the dataset names 0 to " in reason


@pytest.mark.parametrize("info", ["", "[]", "{}", '{"features": ', "[" * 100_000, "\xff"])
def test_dataset_info_that_is_none_is_refused(put, info):
    file = put("dataset_info.json", info.encode("latin-1"))
    reason = f"{file}: not the JSON object with features that datasets writes"
    assert corpus_refusal(put("a.jsonl", lines([NUMBERS]))) == reason


def write_parquet(path: Path, rows: list[dict], features: dict | None = None, **columns) -> str:
    keys = {key: None for row in rows for key in row}
    table = pyarrow.Table.from_pylist([{**keys, **row} for row in rows])
    for name, values in columns.items():
        table = table.append_column(name, [values])
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, path)
    return str(path)


def test_parquet_equals_json_lines(put, tmp_path):
    entities = [{"start": 0, "end": 4, "label": "PER"}]
    rows = [OWN, {"text": "Mina left", "entities": entities}, {"text": "a"}] * 1000
    path = write_parquet(tmp_path / "a.parquet", rows)
    result = read(path)
    assert content(result.examples) == content(read(put("own.jsonl", lines(rows))).examples)
    assert [example.line for example in result.examples] == list(range(1, 3001))
    assert result.notices == []
    texts = [row.text for row in read_rows(path)]
    assert texts == [" ".join(WORDS), "Mina left", "a"] * 1000


def test_parquet_schema_names_the_numbers(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", [NUMBERS], FEATURES)
    assert list(read_records(path)) == [(1, OWN)]


def test_parquet_columns_that_json_lacks_are_counted(tmp_path):
    days, raw = [date(2024, 1, 1)] * 2, [b"a"] * 2
    result = read(write_parquet(tmp_path / "a.parquet", [OWN, OWN], day=days, raw=raw))
    assert len(result.examples) == 2
    said = sorted(notice.split(": ")[1] for notice in result.notices)
    assert [text[:26] for text in said] == ["'day' in 2 rows is not rea", "'raw' in 2 rows is not rea"]


def test_bad_rows_of_parquet_are_reported_by_number(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", [OWN, {**OWN, "tags": ["O"]}])
    assert skipped(path) == ["2: 3 tokens, but 1 tags"]


def test_file_that_is_no_parquet_is_refused(put, tmp_path):
    path = put("a.parquet", "text,label\n")
    assert corpus_refusal(path).startswith(f"{path}: can't be read as Parquet: ")
    whole = Path(write_parquet(tmp_path / "b.parquet", [OWN] * 100)).read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:300] + whole[:8] + whole[308:], whole[:-9] + whole[-8:]):
        path = put("b.parquet", damaged)
        assert corpus_refusal(path).startswith(f"{path}: can't be read as Parquet: ")


def test_missing_pyarrow_is_one_line_with_the_command(put):
    path = put("a.parquet", "")
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'pyarrow' else find(name, *a)\n"
        "from multitask.data.formats.files import read_records\n"
        f"list(read_records({path!r}))"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.stderr.endswith("a Parquet file needs pyarrow: pip install -r requirements-parquet.txt\n")
    assert "pyarrow==" in (ROOT / "requirements-parquet.txt").read_text()
