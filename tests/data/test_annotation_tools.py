"""Exports of doccano, Prodigy and spaCy: the rows are those of the same content in JSON Lines form."""

import json

import pytest
from corpus_files import content, lines, read, skipped

from multitask.data.formats.files import read_records
from multitask.data.notices import Notices
from multitask.data.texts import read_rows

PER = {"start": 0, "end": 4, "label": "PER"}
ORG = {"start": 9, "end": 14, "label": "ORG"}
TEXT = "Mina met Orbis"
WHOLE = {"text": TEXT, "label": "news", "entities": [PER, ORG]}
TRIPLES = [[0, 4, "PER"], [9, 14, "ORG"]]
OFFSETS = [
    {"id": 1, "label": "PER", "start_offset": 0, "end_offset": 4},
    {"id": 2, "label": "ORG", "start_offset": 9, "end_offset": 14},
]
SCORES = {"news": 0.9, "sports": 0.1}
HASHES = {"_input_hash": 1, "_task_hash": -2, "_session_id": None, "_view_id": "ner_manual", "meta": {}}
PRODIGY_TOKENS = [{"text": "Mina", "start": 0, "end": 4, "id": 0, "ws": True}]
PRODIGY_SPANS = [{**PER, "token_start": 0, "token_end": 0}, {**ORG, "text": "Orbis"}]
READ = {  # tool: a row of it, the same row in JSON Lines form
    "doccano's export": [
        ({"id": 1, "text": TEXT, "label": TRIPLES}, {"text": TEXT, "entities": [PER, ORG]}),
        ({"id": 1, "text": TEXT, "labels": TRIPLES, "meta": {}}, {"text": TEXT, "entities": [PER, ORG]}),
        ({"id": 1, "data": TEXT, "label": TRIPLES}, {"text": TEXT, "entities": [PER, ORG]}),
        ({"text": TEXT, "entities": OFFSETS, "relations": [], "Comments": []},
         {"text": TEXT, "entities": [PER, ORG]}),
        ({"text": TEXT, "entities": OFFSETS, "cats": ["news"]}, WHOLE),
        ({"id": 1, "text": TEXT, "entities": TRIPLES, "cats": ["news"], "Comments": []}, WHOLE),
        ({"id": 1, "text": TEXT, "label": ["news"], "Comments": []}, {"text": TEXT, "label": "news"}),
        ({"id": 1, "text": TEXT, "entities": [], "cats": []}, {"text": TEXT, "entities": []}),
    ],
    "Prodigy's export": [
        ({"text": TEXT, "tokens": PRODIGY_TOKENS, "spans": PRODIGY_SPANS, "answer": "accept", **HASHES},
         {"text": TEXT, "entities": [PER, ORG]}),
        ({"text": TEXT, "label": "news", "answer": "accept", "spans": PRODIGY_SPANS}, WHOLE),
        ({"text": TEXT, "options": [{"id": "news", "text": "News"}], "accept": ["news"], "config": {}},
         {"text": TEXT, "label": "news"}),
        ({"text": TEXT, "spans": []}, {"text": TEXT, "entities": []}),
    ],
    "spaCy's training data": [
        ([TEXT, {"entities": TRIPLES, "cats": SCORES}], WHOLE),
        ([TEXT, {}], {"text": TEXT}),
        ({"text": TEXT, "entities": TRIPLES}, {"text": TEXT, "entities": [PER, ORG]}),
        ({"text": TEXT, "cats": {"news": 1, "sports": 0}, "entities": []},
         {"text": TEXT, "label": "news", "entities": []}),
    ],
}  # fmt: skip
CASES = [(tool, *case) for tool, cases in READ.items() for case in cases]


@pytest.mark.parametrize(("tool", "row", "same"), CASES)
def test_row_of_a_tool_equals_the_row_in_json_lines_form(put, tool, row, same):
    path = put("tool.jsonl", lines([row]))
    result = read(path)
    assert result.skipped == []
    assert content(result.examples) == content(read(put("own.jsonl", lines([same]))).examples)
    assert result.notices == [f"{path}:1: read as {tool}"]


def test_rows_of_every_tool_in_one_file_are_named_and_counted(put):
    path = put("a.jsonl", lines([row for _, row, _ in CASES]))
    result = read(path)
    own = read(put("own.jsonl", lines([same for _, _, same in CASES])))
    assert content(result.examples) == content(own.examples)
    assert [example.line for example in result.examples] == list(range(1, len(CASES) + 1))
    named = [(tool, len(cases)) for tool, cases in READ.items()]
    assert [notice.split("read as ")[1] for notice in result.notices] == [
        f"{tool} ({count} rows; this is the first)" for tool, count in named
    ]


def test_text_of_an_entity_is_kept_to_be_compared_with_the_offsets(put):
    path = put("a.jsonl", lines([{"text": TEXT, "spans": PRODIGY_SPANS}]))
    assert list(read_records(path)) == [(1, {"text": TEXT, "entities": [PER, {**ORG, "text": "Orbis"}]})]


def test_same_span_twice_is_passed_on(put):
    path = put("a.jsonl", lines([{"text": TEXT, "label": [TRIPLES[0], TRIPLES[0]]}]))
    assert list(read_records(path)) == [(1, {"text": TEXT, "entities": [PER, PER]})]


@pytest.mark.parametrize("answer", ["reject", "ignore"])
def test_rows_that_were_not_accepted_stay_without_annotation(put, answer):
    row = {"text": TEXT, "label": "news", "spans": PRODIGY_SPANS, "answer": answer}
    path = put("a.jsonl", lines([row, row]))
    result = read(path)
    assert content(result.examples) == content(read(put("own.jsonl", lines([{"text": TEXT}] * 2))).examples)
    message = f"answered '{answer}' in Prodigy: the row stays, without annotation"
    assert f"{path}:1: {message} (2 rows; this is the first)" in result.notices


@pytest.mark.parametrize(
    ("row", "notice"),
    [
        ({"text": TEXT, "label": []}, "an empty list of labels is read as not annotated; "),
        ({"text": TEXT, "cats": {"news": 0.2}}, "no score in cats reaches 0.5: "),
        ({"text": TEXT, "spans": [PER], "_view_id": "ner"}, "a yes-or-no answer in Prodigy: "),
        ({"text": TEXT, "spans": [PER], "_is_binary": True}, "a yes-or-no answer in Prodigy: "),
        ({"text": TEXT, "spans": [PER], "relations": [1]}, "'relations' in 1 rows is not read"),
        ({"text": TEXT, "entities": OFFSETS, "topic": "x"}, "'topic' in 1 rows is not read"),
    ],
)
def test_what_is_not_read_is_said(put, row, notice):
    result = read(put("a.jsonl", lines([row])))
    assert len(result.examples) == 1
    assert len([line for line in result.notices if notice in line]) == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": TEXT, "label": ["news", "sports"]}, "'label' has 2 classes; a row has one"),
        ({"text": TEXT, "label": ["news"], "cats": ["sports"]},
         "'label' and 'cats' may both be the class; keep one of them"),
        ({"text": TEXT, "accept": ["a", "b"], "options": []}, "'accept' has 2 classes; a row has one"),
        ({"text": TEXT, "label": TRIPLES, "entities": OFFSETS},
         "label and entities both hold entities; keep one of them"),
        ({"text": TEXT, "cats": {"a": 0.6, "b": 0.5}}, "'cats' has 2 classes; a row has one"),
        ({"text": TEXT, "cats": {"a": "yes"}},
         "cats must be an object of classes and their scores from 0 to 1"),
        ({"text": TEXT, "spans": 3, "answer": "accept"},
         'spans must be a list of {"start", "end", "label"}'),
        ({"text": TEXT, "label": [[0, 99, "PER"]]}, "an entity from 0 to 99 in a text of 14 characters"),
        ([TEXT, {"entities": [[0, "4", "PER"]]}],
         "an entity's start and end are 0 and '4'; they must be character offsets"),
        ([TEXT, {"text": "another"}], "a row is a JSON object, {...}"),
        ([TEXT], "a row is a JSON object, {...}"),
    ],
)  # fmt: skip
def test_bad_row_of_a_tool_is_reported_and_its_text_still_predicted(put, row, reason):
    path = put("a.jsonl", lines([{"text": "a", "label": "x"}, row]))
    assert skipped(path) == [f"2: {reason}"]
    if isinstance(row, dict):
        assert [example.text for example in read_rows(path)] == ["a", TEXT]


def test_own_rows_with_unknown_keys_are_no_tools(put):
    rows = [{"text": TEXT, "label": "x", "id": 1, "mood": "y"}, {"tokens": ["a"], "tag": ["O"], "meta": 1}]
    result = read(put("a.jsonl", lines(rows)))
    assert [notice.split(": ")[1] for notice in result.notices] == [
        "'id' in 1 rows is not read",
        "'mood' in 1 rows is not read",
        "'tag' in 1 rows is not read; did you mean tags?",
        "'meta' in 1 rows is not read",
    ]


def test_prediction_reads_the_texts_of_every_tool(put):
    path = put("a.jsonl", "".join(json.dumps(row) + "\n" for _, row, _ in CASES))
    assert [row.text for row in read_rows(path)] == [TEXT] * len(CASES)
    assert list(read_records(path, Notices(), annotated=False)) == [
        (line, {"text": TEXT}) for line in range(1, len(CASES) + 1)
    ]
