"""Whole files: bad rows stop the run or are skipped, and files without rows are refused."""

from pathlib import Path

import pytest
from corpus_files import JSONL, corpus_refusal, lines, read
from reading import read_corpus

from multitask.common.errors import InputError


def test_up_to_20_bad_rows_are_listed_and_the_others_counted(put):
    with pytest.raises(InputError) as error:
        read_corpus([put("a.jsonl", "{}\n" * 35)])
    assert str(error.value).count("a row has a text or tokens") == 20
    assert "... and 15 more" in str(error.value)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("a.jsonl", b'{"text": "a"}\n', b'{"text": "\xff"}\n'),
        ("a.csv", b"text,label\nb,x\n", b"\xff,x\n"),
        ("a.conll", b"a O\n\n", b"\xff O\n"),
    ],
)
def test_bytes_that_are_not_utf8_spoil_only_their_row(put, name, good, bad):
    result = read(put(name, good + bad))
    assert (len(result.examples), len(result.skipped)) == (1, 1)


@pytest.mark.parametrize(("name", "text"), [("a.jsonl", ""), ("a.conll", "\n\n"), ("a.csv", "text,label\n")])
def test_file_without_rows_is_refused(put, name, text):
    assert corpus_refusal(put(name, text)).endswith(": the file has no rows")


def test_folder_must_have_seq_in_and_files_of_equal_length(put):
    folder = str(Path(put("e/other", "a")).parent)
    assert corpus_refusal(folder) == f"{folder}: no seq.in; JointBERT folders have seq.in, seq.out and label"
    put("d/seq.in", "a\nb\n")
    folder = str(Path(put("d/label", "x\n")).parent)
    assert corpus_refusal(folder) == f"{folder}: seq.in has 2 lines, label has 1 lines"


def test_every_missing_file_is_named(put):
    with pytest.raises(InputError, match="(?s)x.jsonl: no such file.*y.csv: no such file"):
        read_corpus(["x.jsonl", put("a.jsonl", lines(JSONL)), "y.csv"])
