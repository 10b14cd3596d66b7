"""JointBERT folders: blank lines never move rows, and tags in lower case are noticed."""

from pathlib import Path

import pytest
from corpus_files import content, corpus_refusal, read, skipped

from multitask.data.splits import read_split
from multitask.data.tokenization import WordTokenizer


@pytest.fixture
def folder(put):
    """A function that writes a folder of the three files → its path."""

    def write(words: str, tags: str, labels: str) -> str:
        for name, text in (("seq.in", words), ("seq.out", tags), ("label", labels)):
            path = put(f"d/{name}", text)
        return str(Path(path).parent)

    return write


def test_blank_line_is_a_bad_row_of_its_own(folder):
    path = folder("a b\n\nc\n", "O O\nO\nO\n", "x\ny\nz\n")
    assert content(read(path).examples) == [(["a", "b"], [], "x"), (["c"], [], "z")]
    assert skipped(path) == ["2: seq.in:2 is blank"]
    assert skipped(folder("a\nb\n", "O\n \n", "x\ny\n")) == ["2: seq.out:2 is blank"]
    assert skipped(folder("a\n\nb\n", "O\n\nO\n", "x\n\ny\n")) == ["2: seq.in:2 is blank"]
    assert content(read(folder("a\nb\n", "O\nO\n", "x\n\n")).examples)[1] == (["b"], [], None)


def test_lines_that_are_blank_in_all_files_at_their_end_are_no_rows(folder):
    plain = content(read(folder("a\nb\n", "O\nO\n", "x\ny\n")).examples)
    result = read(folder("a\nb\n\n \n", "O\nO\n\n\n", "x\ny\n\n\n"))
    assert content(result.examples) == plain
    assert result.rows == 2
    path = folder("a\nb\n\n", "O\nO\n", "x\ny\n")
    assert corpus_refusal(path) == f"{path}: seq.in has 3 lines, seq.out has 2 lines, label has 2 lines"


def test_tabs_do_not_join_words(folder):
    reason = "1: seq.in:1 has a tab; separate words and tags by blanks"
    assert skipped(folder("a\tb\n", "O\tO\n", "x\n")) == [reason]


def test_tags_in_lower_case_are_noticed(folder, tokenizer):
    path = folder("academic essay help\n", "b_help_type o o\n", "x\n")
    split = read_split([path], WordTokenizer(tokenizer), 16, 4)
    assert split.notices == [
        f"{path}: type o: entities have tags such as o or B-o; is it the tag O?",
        f"{path}: type 'b_help_type' looks like the tag B-help_type",
    ]
