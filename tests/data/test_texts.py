"""Rows to predict: from corpus files without their annotation, from text files, and from arguments."""

import json
import tracemalloc

import pytest
from corpus_files import refusal

from multitask.data.examples import Example, example_from_text, example_from_words
from multitask.data.texts import (
    MAX_CHARACTERS,
    UnreadableRow,
    is_blank,
    read_rows,
    read_texts,
    rows_from_texts,
)


def texts_or_reasons(rows):
    return [row.text if isinstance(row, Example) else row for row in rows]


def test_lines_of_a_text_file_are_rows(put):
    path = put("a.txt", b"one\n\n\xff\na\0b\r\n\xd7\xa9\xd7\x9c\xd7\x95\xd7\x9d \xf0\x9f\x98\x80")
    bad = UnreadableRow(f"{path}:3: the text is not valid UTF-8")
    assert texts_or_reasons(read_rows(path)) == ["one", "", bad, "a\0b", "שלום 😀"]


def test_read_texts_refuses_lines_that_are_not_utf8(put):
    path = put("a.txt", "\ufeffone\r\n\n two\u2028 \n")
    assert list(read_texts(path)) == [(1, "one"), (2, ""), (3, " two\u2028 ")]
    assert refusal(read_texts, put("a.txt", b"good\n\xff\n")).endswith("a.txt:2: not UTF-8")


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ('{"text": "", "label": ""}', ""),
        ('{"text": " \\t"}', " \t"),
        ('{"text": "Ada won", "entities": "not looked at", "id": 7}', "Ada won"),
        ('{"tokens": ["Ada", "", "wo n"], "tags": ["O"]}', "Ada  wo n"),
        ('{"tokens": []}', ""),
    ],
)
def test_annotation_is_not_looked_at_and_texts_may_be_empty(put, row, text):
    assert texts_or_reasons(read_rows(put("a.jsonl", row))) == [text]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"text": "\\ud800"}', "the text is not valid UTF-8"),
        ('{"text": null}', "a row has a text or tokens"),
        ('{"text": "a", "tokens": ["b"]}', "the tokens are not the words of the text, in order"),
        ('{"tokens": "Ada"}', "tokens must be a list of words"),
        ('{"tokens": ["\\udfff"]}', "a word is not valid UTF-8"),
        ('{"text": 3}', "text is 3; it must be a string"),
        ("[]", "a row is a JSON object, {...}"),
        ("{", "not JSON: Expecting property name enclosed in double quotes at column 2"),
    ],
)
def test_unreadable_row_has_file_line_and_reason(put, row, reason):
    path = put("a.jsonl", f'{{"text": "a"}}\n{row}\n{{"text": "b"}}\n')
    assert texts_or_reasons(read_rows(path)) == ["a", UnreadableRow(f"{path}:2: {reason}"), "b"]


def test_what_a_person_should_know_about_a_file_is_logged_after_its_last_row(put, capsys):
    path = put("a.csv", 'text,label\n"two\nlines",x\nlast,y\n')
    rows = read_rows(path)
    assert next(rows).text == "two\nlines" and capsys.readouterr().err == ""
    assert [row.text for row in rows] == ["last"]
    assert capsys.readouterr().err.startswith(f"{path}: 1 rows take several lines in quotes")
    list(read_rows(put("a.jsonl", '{"text": "a", "id": 7}')))
    assert capsys.readouterr().err == "", "other keys are not needed"


@pytest.mark.parametrize(
    ("row", "blank"),
    [
        (example_from_text(""), True),
        (example_from_text(" \u2003\r\n"), True),
        (example_from_words([]), True),
        (example_from_words(["", "\t"]), False),
        (example_from_text("."), False),
        (example_from_words(["", "a"]), False),
    ],
)
def test_a_blank_row_has_no_words(row, blank):
    assert is_blank(row) is blank


def test_rows_of_tables_and_conll_files(put):
    path = put("a.csv", 'text,label\n"two\nlines",x\nlonely\n')
    bad = UnreadableRow(f"{path}:4: 1 columns, where the first line has 2")
    assert texts_or_reasons(read_rows(path)) == ["two\nlines", bad]
    conll = put("a.conll", "# label = x\nAda\tB-PER\nwon\tO\n\nOslo\n")
    assert texts_or_reasons(read_rows(conll)) == ["Ada won", "Oslo"]


def test_tokens_are_kept_as_words(put):
    words = ["AT&T", "U.", "S.", "", "two words", "é"]
    (row,) = read_rows(put("a.jsonl", json.dumps({"tokens": words})))
    assert row.words == words
    assert [row.text[start:end] for start, end in row.offsets] == words


def test_arguments_of_a_command_line_are_rows():
    bad = b"caf\xe9".decode("utf-8", "surrogateescape")  # as Python gives what a shell in Latin-1 passes
    reason = UnreadableRow("text 3: the text is not valid UTF-8")
    assert texts_or_reasons(rows_from_texts(["a b", "", bad])) == ["a b", "", reason]


def test_texts_that_are_too_long_are_unreadable():
    assert texts_or_reasons(rows_from_texts(["ab", "abc", "\ud800"], max_characters=2)) == [
        "ab",
        UnreadableRow("text 2: 3 characters; at most 2 are read"),
        UnreadableRow("text 3: the text is not valid UTF-8"),
    ]


LONG = "x" * (MAX_CHARACTERS + 1)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("a.txt", f"{LONG}\n"),
        ("a.jsonl", json.dumps({"text": LONG}) + "\n"),
        ("a.jsonl", json.dumps({"tokens": ["x"] * (MAX_CHARACTERS // 2 + 1)}) + "\n"),
        ("a.csv", f"text,label\n{LONG},x\n"),
        ("a.conll", f"{LONG} O\n\n"),
    ],
)
def test_a_row_that_is_too_long_has_the_reason_in_its_place(put, name, row):
    longest = row.replace(LONG, LONG[1:])
    end = "short O\n" if name == "a.conll" else "short,x\n" if name == "a.csv" else "short\n"
    if name == "a.jsonl":
        end = '{"text": "short"}\n'
    first, last = texts_or_reasons(read_rows(put(name, row + end)))
    assert last == "short" and "characters" in first.reason and first.reason.startswith(f"{put(name, row)}:")
    if longest != row:
        assert texts_or_reasons(read_rows(put(name, longest + end))) == [LONG[1:], "short"]


def test_a_line_of_any_length_takes_bounded_memory(put):
    path = put("a.txt", b"one\n" + b"word " * 8_000_000 + "\né\n".encode() + "é".encode() * MAX_CHARACTERS)
    tracemalloc.start()
    rows = texts_or_reasons(row for row in read_rows(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    too_long = UnreadableRow(f"{path}:2: more than 1,000,000 characters; split the text")
    assert rows == ["one", too_long, "é", "é" * MAX_CHARACTERS]
    assert peak < 40_000_000
    assert refusal(lambda path: list(read_texts(path)), path) == f"{too_long.reason}"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", "label\nx\n", "a.csv:1: the first line names the columns"),
        ("a.txt", b"\xff\xfea\0", "a.txt:1: UTF-16"),
        ("a.txt", b"a\rb", "lines end in \\r alone"),
    ],
)
def test_file_that_can_not_be_read_as_a_whole_is_refused(put, name, content, reason):
    assert reason in refusal(read_rows, put(name, content))


@pytest.mark.parametrize("name", ["no.txt", "no.jsonl", "no.csv"])
def test_missing_file_is_refused_before_the_first_row(name):
    assert refusal(lambda path: [read_rows(path)], name) == f"{name}: no such file"
