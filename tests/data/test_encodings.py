"""Encodings, line ends and control characters of data files."""

from pathlib import Path

import pytest
from corpus_files import CONLL, FILES, JSONL, corpus_refusal, lines, read, refusal, skipped
from reading import read_corpus

from multitask.data.texts import read_texts

CARRIAGE_RETURN = "a carriage return inside the line; lines end in \\n or \\r\\n"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-be", "utf-32-be"])
@pytest.mark.parametrize("name", [*FILES, "folder/seq.in", "a.txt", "texts"])
def test_file_in_another_encoding_is_refused(put, name, encoding):
    content = ("\ufeff" if encoding.endswith("be") else "") + FILES.get(name, "anna won\n" * 1000)
    path = put(name, content.encode(encoding))
    reason = f"{path}:1: UTF-16 or UTF-32, by its byte order mark; save the file as UTF-8"
    if name == "texts":
        assert refusal(read_texts, path) == reason
    else:
        assert corpus_refusal(str(Path(path).parent) if "/" in name else path) == reason


def test_carriage_return_ends_rows_of_tables(put):
    plain = read_corpus([put("a.csv", FILES["a.csv"])]).examples
    assert read_corpus([put("a.csv", FILES["a.csv"].replace("\n", "\r"))]).examples == plain


def test_carriage_return_spoils_rows_that_it_would_join(put):
    joined = put("a.jsonl", lines(JSONL).replace("\n", "\r"))  # for JSON it is white space
    assert skipped(joined) == ["1: not JSON: Extra data at column 116"]
    assert corpus_refusal(put("a.conll", CONLL.replace("\n", "\r"))).endswith(CARRIAGE_RETURN)
    assert skipped(put("a.conll", "a O\n\nb O\rc B-X\n\nd O\n")) == [f"3: {CARRIAGE_RETURN}"]
    put("d/seq.in", "a b\rc d\ne f\n")
    folder = str(Path(put("d/seq.out", "O O\rO O\nO O\n")).parent)
    assert skipped(folder) == [f"1: {CARRIAGE_RETURN}"]


def test_carriage_return_alone_does_not_end_lines_of_text_files(put):
    assert "lines end in \\r alone" in refusal(read_texts, put("a.txt", "one\rtwo\rthree"))
    assert list(read_texts(put("a.txt", "one\rstill\ntwo"))) == [(1, "one\rstill"), (2, "two")]


@pytest.mark.parametrize(
    ("name", "content"), [("a.conll", b"a\0 O\n"), ("a.csv", b"text,label\na\0,x\n"), ("a.txt", b"a\0 O\n")]
)
def test_nul_is_a_character_like_others(put, name, content):
    assert read_corpus([put(name, content)]).examples[0].words[0] in ("a\0", "a")


def test_nul_must_be_escaped_in_json(put):
    result = read(put("a.jsonl", b'{"text": "a\0"}\n{"text": "a\\u0000b"}\n'))
    (reason,) = result.skipped
    assert reason.endswith("1: not JSON: Invalid control character at at column 12")
    assert result.examples[0].text == "a\0b"
