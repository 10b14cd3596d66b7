"""Tags with and without prefixes: most of a file's tags decide, whichever come first."""

from collections import Counter
from pathlib import Path

import pytest
from corpus_files import JSONL, SENTENCES, content, lines, read
from hypothesis import given
from hypothesis import strategies as st
from reading import read_corpus

from multitask.common.errors import InputError
from multitask.data.labels import Span
from multitask.data.readers import MisleadingFirstTags, ReadResult, iter_examples


@pytest.mark.parametrize(
    "tags",
    ["I-PER O O I-LOC I-LOC", "S-PER O O B-LOC E-LOC", "U-PER O O B-LOC L-LOC", "PER O O LOC LOC"],
)
def test_tag_scheme_is_recognized(put, tags):
    result = read(put("a.jsonl", lines([{**JSONL[0], "tags": tags.split()}, JSONL[1]])))
    assert content(result.examples) == SENTENCES[:2]
    notice = f"{result.examples[0].path}: 2 entities begin with I- (or E-, L-, M-); read as IOB1"
    assert result.notices == ([notice] if tags.startswith("I-") else [])


@given(st.lists(st.lists(st.sampled_from(["O", "O", "B-A", "I-A", "A", "B"]), min_size=1, max_size=3)))
def test_one_pass_gives_the_same_as_counting_first(tmp_path_factory, tags):
    rows = [{"tokens": ["w"] * len(row), "tags": row} for row in tags] + [{"tokens": ["w"]}]
    path = str(tmp_path_factory.mktemp("tags") / "a.jsonl")
    Path(path).write_text(lines(rows))
    counted, one_pass = ReadResult(), ReadResult()
    counted.examples = list(iter_examples([path], counted, "skip", count_tags=True))
    counts = Counter(tag for row in tags for tag in row if tag != "O")
    prefixed = sum(counts[tag] for tag in ("B-A", "I-A")) >= sum(counts[tag] for tag in ("A", "B"))
    rare = {"A", "B"} if prefixed else {"B-A", "I-A"}
    assert [example.line for example in counted.examples] == [
        line for line, row in enumerate(rows, 1) if not rare & set(row.get("tags", ()))
    ]
    try:
        one_pass.examples = list(iter_examples([path], one_pass, "skip", count_tags=False))
    except MisleadingFirstTags:
        assert counts
        one_pass = read_corpus([path], "skip")
    assert one_pass == counted


def test_misleading_first_tags_do_not_change_other_rows(put):
    few, many = {"tokens": ["a"], "tags": ["PER"]}, {"tokens": ["a", "b"], "tags": ["B-PER", "I-PER"]}
    path = put("a.jsonl", lines([few] + [many] * 3))
    result = read_corpus([path, path], "skip")
    reason = f"{path}:1: tag 'PER': most tags of this file have a prefix such as B- or I-"
    assert result.skipped == [reason] * 2
    assert content(result.examples) == [(["a", "b"], [Span(0, 2, "PER")], None)] * 6
    assert (result.rows, result.file_rows) == (8, [0, 3, 6])
    with pytest.raises(InputError, match="a.jsonl:1: tag 'PER'"):
        read_corpus([path])
