"""Rows of JSON Lines: entities become spans of words, and a row that can't be used is one short line."""

import json

import pytest
from corpus_files import JSONL, lines, read, skipped
from reading import read_corpus

from multitask.common.errors import InputError


def one_entity(start: str, end: str, label: str = '"X"', text: str = "ab") -> str:
    return f'{{"text": "{text}", "entities": [{{"start": {start}, "end": {end}, "label": {label}}}]}}'


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"tokens": ["a"], "tags": ["O"', "not JSON"),
        ("[1, 2]", "a row is a JSON object"),
        ("[" * 50_000, "nested too deeply"),
        ('{"label": "x"}', "a row has a text or tokens"),
        ('{"text": "a b", "tokens": ["b"]}', "the tokens are not the words of the text, in order"),
        ('{"text": "a", "tokens": ["a"], "entities": []}', "with tokens give tags"),
        ('{"tokens": ["a", "b"], "tags": ["O"]}', "2 tokens, but 1 tags"),
        ('{"tokens": [], "tags": []}', "no words"),
        ('{"tokens": "a b"}', "tokens must be a list"),
        ('{"tokens": ["a", 1]}', "tokens must be a list"),
        ('{"tokens": ["\\udfff"]}', "a word is not valid UTF-8"),
        ('{"tokens": ["a"], "tags": [1]}', "tags must be a list"),
        ('{"tokens": ["a"], "tags": [""]}', "tags must be a list"),
        ('{"tokens": ["a"], "tags": [" "]}', "tags must be a list"),
        ('{"tokens": ["a"], "tags": ["B-\\ud800"]}', "tags must be a list"),
        ('{"tokens": ["a"], "entities": []}', "with tokens give tags"),
        ('{"text": "a", "tags": ["O"]}', "with a text give entities"),
        ('{"text": "  "}', "the text has no words"),
        ('{"text": 5}', "text is 5; it must be a string"),
        ('{"text": "\\ud800"}', "the text is not valid UTF-8"),
        ('{"text": "a", "label": 3}', "label is 3"),
        ('{"text": "a", "label": ""}', "label is ''"),
        ('{"text": "a", "label": NaN}', "label is NaN"),
        ('{"text": "a", "label": "\\ud800"}', "the label is not valid UTF-8"),
        ('{"text": "a", "entities": 3}', "entities must be a list"),
        (one_entity("0", "3"), "from 0 to 3 in a text of 2"),
        (one_entity("1", "1"), "from 1 to 1"),
        (one_entity("1", "2", text="a b"), "has no words"),
        (one_entity("true", "2"), "must be character offsets"),
        (one_entity("NaN", "Infinity"), "start and end are NaN and Infinity"),
        (one_entity("0", "2", "null"), "label is null"),
        ('{"text": "abc", "entities": [{"start": 0, "end": 2, "label": "X"},'
         ' {"start": 1, "end": 3, "label": "Y"}]}', "overlap at character 1"),
        ('{"text": "a", "text": "b"}', "an object has the key 'text' twice"),
        ('{"text": "a", "text" : "b"}', "an object has the key 'text' twice"),
        ('{"text": "a", "text"\t: "b"}', "an object has the key 'text' twice"),
        ('{"text" :"a", "text" :"b", "note":{"a":1}}', "an object has the key 'text' twice"),
        ('{"text": "a", "x": {"k": 1, "k": 2}}', "the key 'k' twice"),
        (one_entity("0", '1, "end": 1'), "the key 'end' twice"),
        ('{"tokens": ["a", "b"], "tags": ["PER", "O"]}', "most tags of this file have a prefix"),
        # long or deep values, which messages cut
        ('{"text": "a", "x": ' + "[" * 20_000 + "]" * 20_000 + "}", "nested too deeply"),
        ('{"text": "a", "label": ' + '{"a":' * 900 + "1" + "}" * 900 + "}", "label is an object"),
        ('{"text": "a", "label": ' + "[" * 900 + "]" * 900 + "}", "label is a list"),
        ('{"text": "a", "label": ' + "9" * 4000 + "}", "label is 999999999"),
        ('{"text": "a", "label": ' + "9" * 5000 + "}", "a number is too long"),
        (one_entity("0", "9" * 4000), "from 0 to 9"),
        (one_entity("[" * 900 + "]" * 900, "1"), "start and end are a list and 1"),
        ('{"text": "a b", "entities": [{"start": 0, "end": 3, "label": "X"}, '
         '{"start": 1, "end": 2, "label": "' + "Y" * 10_000 + '"}]}', "two entities overlap"),
    ],
)  # fmt: skip
def test_bad_row_is_reported_in_one_short_line(put, row, reason):
    good = lines(JSONL[:1])
    path = put("a.jsonl", good + "\n" + row + "\n" + good)
    with pytest.raises(InputError) as error:
        read_corpus([path])
    (line,) = skipped(path)
    assert str(error.value) == f"{path}:{line}"
    assert line.startswith("3: ") and reason in line
    assert len(line) < 250 and "\n" not in line
    assert len(read(path).examples) == 2


def test_unknown_keys_are_counted(put):
    result = read(put("a.jsonl", lines([{"tokens": ["a"], "tag": ["O"]}] * 3)))
    assert result.notices == [f"{result.examples[0].path}: 'tag' in 3 rows is not read; did you mean tags?"]


def test_unknown_keys_of_bad_rows_are_counted_too(put):
    (notice,) = read(put("a.jsonl", lines([{"tokens": ["a"]}, {"txt": "a"}]))).notices
    assert notice.endswith("'txt' in 1 rows is not read; did you mean text?")


@pytest.mark.parametrize(
    ("key", "meant"),
    [("lable", "label"), ("entity", "entities"), ("texts", "text"), ("t", None), ("id", None), ("a.t", None)],
)
def test_only_misspelt_keys_get_a_suggestion(put, key, meant):
    (notice,) = read(put("a.jsonl", lines([{"tokens": ["a"], key: 1}]))).notices
    assert notice.endswith(f"did you mean {meant}?" if meant else "is not read")


def test_up_to_20_unknown_keys_are_named(put):
    row = {"text": "a", "\ud800": 1, "k" * 100_000: 1, **{f"key{i}": 1 for i in range(50)}}
    notices = read(put("a.jsonl", json.dumps(row) + "\n")).notices
    assert len(notices) == 21
    assert notices[-1].endswith("32 more keys are not read")
    assert max(map(len, notices)) < 250
