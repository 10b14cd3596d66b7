"""Types that look like the tag O, like tags, or like each other; ordinary names give no notice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitask.data.labels import doubtful_types
from multitask.data.splits import read_split
from multitask.data.tokenization import WordTokenizer


@pytest.mark.parametrize(
    ("names", "notices"),
    [
        (["O", "ORG"], ["type O: entities have tags such as B-O; is it the tag O?"]),
        (["x", "o"], ["type o: entities have tags such as o or B-o; is it the tag O?"]),
        (["b_x", "i_x", "y"], ["type 'b_x' looks like the tag B-x", "type 'i_x' looks like the tag I-x"]),
        (["b-x", "x"], ["type 'b-x' looks like the tag B-x"]),
        (["B-x", "X"], ["type 'B-x' looks like the tag B-x"]),
        (["b_x", "b_y"], ["type 'b_x' looks like the tag B-x", "type 'b_y' looks like the tag B-y"]),
        (["PER", "LOC", "Per"], ["types 'PER' and 'Per' differ only in case"]),
    ],
)
def test_doubtful_types_are_named(names, notices):
    assert doubtful_types(names) == notices


def test_many_doubtful_types_are_counted():
    *_, last = notices = doubtful_types(f"b_{number}" for number in range(30))
    assert (len(notices), last) == (11, "20 more types look like tags")


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["PER", "LOC", "ORG", "MISC"],
        ["e_mail", "phone", "B-52"],
        ["fromloc.city_name", "toloc.city_name", "depart_time.time"],
        ["Titre 1", "Job title", "OtherPER", "o2"],
    ],
)
def test_ordinary_types_give_no_notice(names):
    assert doubtful_types(names) == []


@given(st.sets(st.from_regex(r"[A-Z]{2,5}", fullmatch=True)))
def test_types_in_capitals_give_no_notice(names):
    assert doubtful_types(names) == []


def test_an_entity_of_type_o_is_noticed_when_files_are_read(write_rows, tokenizer):
    rows = [{"tokens": ["From", "the", "AP"], "tags": ["B-O", "O", "B-ORG"], "label": "a"}]
    path = write_rows("a.jsonl", rows)
    split = read_split([path, path], WordTokenizer(tokenizer), 16, 4)
    assert split.notices == [f"{path}, {path}: type O: entities have tags such as B-O; is it the tag O?"]
