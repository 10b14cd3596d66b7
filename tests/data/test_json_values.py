"""JSON arrays, JSON over several lines, and arbitrary JSON values; formats that are refused."""

import json
import tempfile
from pathlib import Path

import pytest
from corpus_files import FILES, JSONL, content, corpus_refusal, lines, read, skipped
from fuzzing import VALUES, examples, exhaustive, result_or_none
from hypothesis import example, given
from hypothesis import strategies as st
from reading import read_corpus

from multitask.data.formats.files import read_records

PAIR = ["Mina left", {"entities": [[0, 4, "PER"]]}]


@pytest.mark.parametrize("indent", [None, 0, 1, 4])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "rows"])
@pytest.mark.parametrize("start", ["", "\n \n", "\ufeff"])
def test_array_equals_json_lines(put, name, indent, start):
    path = put(name, start + json.dumps(JSONL, indent=indent))
    assert content(read(path).examples) == content(read(put("own.jsonl", FILES["a.jsonl"])).examples)


def test_rows_of_an_array_have_the_line_where_they_begin(put):
    rows = '[\n {"text": "a"}, {"text":\n "b"}\n,\n\n3, {"text": "c",\n"text": "d"}, {"text": "e"}\r\n]\n\n'
    result = read(put("a.json", rows))
    assert [(row.text, row.line) for row in result.examples] == [("a", 2), ("b", 2), ("e", 7)]
    assert [reason.split(":", 1)[1] for reason in result.skipped] == [
        "6: a row is a JSON object, {...}",
        "6: an object has the key 'text' twice",
    ]


def test_one_object_over_several_lines_is_one_row(put):
    path = put("a.json", "\n" + json.dumps(JSONL[0], indent=2) + "\n")
    assert list(read_records(path)) == [(2, JSONL[0])]


@pytest.mark.parametrize("indent", [None, 1])
def test_rows_that_are_lists_are_told_from_arrays(put, indent):
    row = {"text": "Mina left", "entities": [{"start": 0, "end": 4, "label": "PER"}]}
    for rows, path in (
        ([row], put("one.jsonl", json.dumps(PAIR))),
        ([row, row], put("lines.jsonl", lines([PAIR, PAIR]))),
        ([row, row], put("array.json", json.dumps([PAIR, PAIR], indent=indent))),
        ([row], put("short.json", json.dumps([PAIR], indent=indent))),
    ):
        assert [given for _, given in read_records(path)] == rows


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[\n{"text": "a"},\n{"text" "b"}]', "3: not JSON: Expecting ':' delimiter at column 9"),
        ('[\n{"text": "a"}\n{"text": "b"}]', "3: not JSON: a comma or the end of the array is missing"),
        ('[\n{"text": "a"}\n', "3: not JSON: a comma or the end of the array is missing"),
        ('[{"text": "a"},\n]', "2: not JSON: Expecting value at column 1"),
        ('[{"text": "a"}]\n\n{"text": "b"}', "3: not JSON: more text after the end of the array"),
        ("[\n" + "[" * 100_000, "2: JSON that can't be read: nested too deeply, or a number is too long"),
    ],
)
def test_broken_array_is_one_error_with_its_line(put, text, reason):
    path = put("a.json", text)
    assert corpus_refusal(path) == f"{path}:{reason}"


@pytest.mark.parametrize("text", ["[]", " [ ]\n", "[\n]"])
def test_empty_array_has_no_rows(put, text):
    assert corpus_refusal(put("a.json", text)).endswith(": the file has no rows")


def test_unfinished_first_line_spoils_only_its_row(put):
    path = put("a.jsonl", '{"text": "a",\n{"text": "b"}\n')
    (reason,) = skipped(path)
    assert reason.startswith("1: not JSON: ")


def test_array_in_another_encoding_is_refused(put):
    path = put("a.json", json.dumps(JSONL).encode("utf-16"))
    assert corpus_refusal(path).startswith(f"{path}:1: UTF-16 or UTF-32")
    path = put("b.json", b'[\n{"text": "\xff"},\n{"text": "b"}]')
    assert skipped(path) == ["2: the text is not valid UTF-8"]


def test_brat_and_webanno_are_refused_with_the_way_to_convert_them(put):
    path = put("brat/a.ann", "T1\tPER 0 4\tMina\n")
    for brat in (path, str(Path(path).parent)):
        assert corpus_refusal(brat).startswith(f"{brat}: brat's .ann files are not read; run its tools/")
    for name in ("a.tsv", "webanno"):
        path = put(name, "#FORMAT=WebAnno TSV 3.3\n#T_SP=de.NamedEntity|value\n\n1-1\t0-4\tMina\tPER\n")
        reason = (
            "WebAnno TSV is not read; export the document from INCEpTION or WebAnno as CoNLL 2002 instead"
        )
        assert corpus_refusal(path) == f"{path}: {reason}"


KEYS = (
    *("text", "tokens", "tags", "entities", "label", "labels", "data", "annotations", "cats", "spans"),
    *("answer", "accept", "options", "words", "ner_tags", "intent", "Comments", "lead_time", "sentiment"),
)
TEXTS = st.just("Mina met Orbis")
SPAN = st.fixed_dictionaries(
    {},
    optional={
        **{key: st.integers(0, 15) | VALUES for key in ("start", "end", "start_offset", "end_offset")},
        "label": st.just("PER") | VALUES,
        "labels": st.just(["PER"]) | VALUES,
    },
)
TRIPLE = st.tuples(st.integers(0, 15), st.integers(0, 15), st.just("PER")).map(list)
RESULT = st.fixed_dictionaries(
    {"type": st.sampled_from(["labels", "choices", "rating"]) | VALUES},
    optional={"value": SPAN | st.just({"choices": ["x"]}) | VALUES, "from_name": VALUES},
)
ANNOTATION = st.fixed_dictionaries({"result": st.lists(RESULT, max_size=3) | VALUES})
VALUE = (
    VALUES
    | TEXTS
    | st.lists(SPAN | TRIPLE | ANNOTATION | st.sampled_from(["O", "B-PER", 1]) | VALUES, max_size=3)
    | st.fixed_dictionaries({}, optional={"text": TEXTS | VALUES, "choices": VALUES})
    | st.sampled_from(["accept", "reject", 0, -1])
)
ROW = st.dictionaries(st.sampled_from(KEYS), VALUE, max_size=5) | st.tuples(TEXTS, VALUE).map(list) | VALUES
TEXT_ROW = st.tuples(TEXTS, st.dictionaries(st.sampled_from(KEYS), VALUE, max_size=4)).map(
    lambda pair: {**pair[1], "text": pair[0]}
)


def check_rows(rows: list, as_array: bool) -> None:
    """Every row is read or reported, whether annotation is looked at or not."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_text(json.dumps(rows, indent=1) if as_array else lines(rows))
        result = result_or_none(read_corpus, [str(path)], "skip")
        assert result is None or result.rows == len(rows)
        assert len(list(read_records(str(path), annotated=False))) == len(rows)
        for line in () if result is None else [*result.skipped, *result.notices]:
            assert len(line) < 600 and "\n" not in line


@examples(200)
@given(st.lists(ROW | TEXT_ROW, min_size=2, max_size=4), st.booleans())
@example([{"text": "a"}, {"tokens": {"a": 1}, "tags": 3, "label": "x"}], False)
@example([{"text": "a"}, {"text": "a", "label": "x", "entities": {"start": 1}}], False)
def test_any_json_value_is_read_or_reported(rows, as_array):
    check_rows([{"text": "first"}, *rows], as_array)


@exhaustive
@given(st.lists(ROW | TEXT_ROW, min_size=2, max_size=4), st.booleans())
def test_any_json_value_is_read_or_reported_exhaustively(rows, as_array):
    check_rows([{"text": "first"}, *rows], as_array)
