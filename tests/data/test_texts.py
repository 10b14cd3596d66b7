import json

import pytest

from multitask.common.errors import InputError
from multitask.data.rows import Example
from multitask.data.texts import UnreadableRow, read_rows, rows_from_texts


def said(rows):
    return [row.text if isinstance(row, Example) else row for row in rows]


def test_a_line_is_a_row_and_one_that_is_no_utf8_has_its_reason(put):
    path = put("a.txt", b"one\n\n\xff\na\0b\r\n\xd7\xa9\xd7\x9c\xd7\x95\xd7\x9d \xf0\x9f\x98\x80")
    bad = UnreadableRow(f"{path}:3: the text is not valid UTF-8")
    assert said(read_rows(path)) == ["one", "", bad, "a\0b", "שלום 😀"]


def test_rows_of_every_format_are_read_without_their_annotation(put):
    lines = [
        '{"text": "", "label": ""}',
        '{"text": "Ada won", "entities": "none of them is looked at", "id": 7}',
        '{"tokens": ["Ada", "", "wo n"], "tags": ["O"]}',
        '{"text": "\\ud800"}',
        '{"text": null}',
        '{"text": "a", "tokens": ["a"]}',
        '{"tokens": "Ada"}',
        '{"tokens": ["\\udfff"]}',
        '{"text": 3}',
        "[]",
        "{",
    ]
    path = put("a.jsonl", "\n".join(lines))
    reasons = [
        "the text is not valid UTF-8",
        "a row has either text or tokens",
        "a row has either text or tokens",
        "tokens is a list of words",
        "a word is not valid UTF-8",
        "text is 3; it is a string",
        "a row is a JSON object, {...}",
        "not JSON: Expecting property name enclosed in double quotes at column 2",
    ]
    expected = [UnreadableRow(f"{path}:{line}: {reason}") for line, reason in enumerate(reasons, 4)]
    assert said(read_rows(path)) == ["", "Ada won", "Ada  wo n", *expected]
    assert said(read_rows(put("a.csv", 'text,label\n"two\nlines",x\nlonely\n'))) == [
        "two\nlines",
        UnreadableRow(f"{path[:-5]}csv:4: 1 columns, where the first line has 2"),
    ]
    assert said(read_rows(put("a.conll", "# label = x\nAda\tB-PER\nwon\tO\n\nOslo\n"))) == ["Ada won", "Oslo"]


def test_words_that_are_given_are_kept_and_have_their_offsets(put):
    words = ["AT&T", "U.", "S.", "", "two words", "é"]
    (row,) = read_rows(put("a.jsonl", json.dumps({"tokens": words})))
    assert row.words == words
    assert [row.text[start:end] for start, end in row.offsets] == words


def test_arguments_are_rows_too():
    bad = b"caf\xe9".decode("utf-8", "surrogateescape")  # as Python gives what a shell in Latin-1 passes
    assert said(rows_from_texts(["a b", "", bad])) == [
        "a b",
        "",
        UnreadableRow("text 3: the text is not valid UTF-8"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", "label\nx\n", "a.csv:1: the first line names the columns"),
        ("a.txt", b"\xff\xfea\0", "a.txt:1: UTF-16"),
        ("a.txt", b"a\rb", "lines end in \\r alone"),
    ],
)
def test_a_file_that_is_no_file_of_rows_is_refused(put, name, content, reason):
    with pytest.raises(InputError) as error:
        list(read_rows(put(name, content)))
    assert reason in str(error.value)


@pytest.mark.parametrize("name", ["no.txt", "no.jsonl", "no.csv"])
def test_a_file_that_is_not_there_is_seen_before_it_is_read(name):
    with pytest.raises(InputError, match=f"{name}: no such file"):
        read_rows(name)


def test_texts_that_are_too_long_have_their_length_as_the_reason():
    found = list(rows_from_texts(["ab", "abc", "\ud800"], most=2))
    assert found[0].text == "ab"
    assert [row.reason for row in found[1:]] == [
        "text 2: 3 characters; at most 2 are read",
        "text 3: the text is not valid UTF-8",
    ]
