"""Rasa's YAML: the examples of intents equal the same rows in JSON Lines form."""

import pytest
from corpus_files import content, corpus_refusal, lines, read, skipped

from multitask.data.formats.files import read_records
from multitask.data.texts import read_rows

RASA = """version: "3.1"
nlu:
# a comment
- intent: book
  examples: |
    - fly to [Oslo](city) from [New York]{"entity": "city", "value": "NYC"}

    - [a window](seat:window) please
- intent: greet
  examples:
  - text: |
      hello
    metadata: 1
  - good day, [Mina](name)
- intent: faq/ask
  examples: "- is [1] read (see below)?"
"""
ROWS = [
    (6, {"text": "fly to Oslo from New York", "label": "book",
         "entities": [{"start": 7, "end": 11, "label": "city"}, {"start": 17, "end": 25, "label": "city"}]}),
    (8, {"text": "a window please", "label": "book", "entities": [{"start": 0, "end": 8, "label": "seat"}]}),
    (11, {"text": "hello", "label": "greet", "entities": []}),
    (14, {"text": "good day, Mina", "label": "greet",
          "entities": [{"start": 10, "end": 14, "label": "name"}]}),
    (16, {"text": "is [1] read (see below)?", "label": "faq/ask", "entities": []}),
]  # fmt: skip


@pytest.mark.parametrize("name", ["nlu.yml", "nlu.yaml"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_examples_of_intents_equal_json_lines(put, name, end):
    path = put(name, ("\ufeff" + RASA.replace("\n", end)).encode())
    assert list(read_records(path)) == ROWS
    result = read(path)
    own = read(put("own.jsonl", lines([row for _, row in ROWS])))
    assert content(result.examples) == content(own.examples)
    assert result.notices == [f"{path}:6: read as Rasa's examples of intents (5 rows; this is the first)"]
    assert [row.text for row in read_rows(path)] == [row["text"] for _, row in ROWS]


def test_file_without_entities_is_not_annotated(put):
    path = put("a.yml", "nlu:\n- intent: greet\n  examples: |\n    - hello\n    - good day\n")
    assert [row for _, row in read_records(path)] == [
        {"text": "hello", "label": "greet"},
        {"text": "good day", "label": "greet"},
    ]


def test_what_is_not_read_is_named(put):
    path = put(
        "a.yml",
        'nlu:\n- intent: go\n  examples: |\n    - to [Oslo]{"entity": "city", "role": "to"}\n'
        "- lookup: city\n  examples: |\n    - Oslo\n- synonym: NYC\n  examples: |\n    - New York\n"
        "- regex: zip\n  examples: |\n    - \\d+\nstories:\n- story: x\n",
    )
    assert read(path).notices == [
        f"{path}:15: the section 'stories' of a Rasa file is not read",
        *(
            f"{path}:{line}: Rasa's '{kind}' is not read; only intents are"
            for line, kind in ((5, "lookup"), (8, "synonym"), (11, "regex"))
        ),
        f"{path}:4: the roles and groups of Rasa's entities are not read",
        f"{path}:4: read as Rasa's examples of intents",
    ]


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        ("hello", "4: an example begins with \"- \"; found 'hello'"),
        ('- to [Oslo]{"entity": }', "4: '{\"entity\": }' is no JSON object such as {\"entity\": \"city\"}"),
        ('- to [Oslo][{"entity": "a"}, {"entity": "b"}]',
         "4: 'Oslo' is several entities at once; a word has one tag"),
        ('- to [Oslo]{"value": "x"}', "4: an entity's label is null; it must be a name such as PERSON"),
        ("-", "4: the text has no words"),
    ],
)  # fmt: skip
def test_bad_example_is_reported_with_its_line(put, example, reason):
    path = put("a.yml", f"nlu:\n- intent: go\n  examples: |\n    {example}\n    - a\n")
    assert skipped(path) == [reason]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", ": no nlu section; "),
        ("stories: []\n", ": no nlu section; "),
        ("nlu:\n- intent: a\n", ":2: the intent 'a' has no examples"),
        ("nlu:\n- intent: a\n  intent: b\n  examples: x\n", ":3: the key 'intent' stands twice"),
        ("nlu: {}\n", ":1: not a list"),
        ("nlu:\n- [a]\n", ":2: not an object of `key: value`"),
        ("nlu:\n- intent: [a]\n  examples: x\n", ":2: not a string"),
        ("nlu: &a\n- *a\n", ":2: aliases (*name) are not read"),
        ("nlu:\n  - a: b\n - c", ":3: not YAML that can be read: "),
        ("nlu: " + "[" * 3000, ": not YAML that can be read: nested too deeply"),
        ("nlu: \0", ": not YAML that can be read: "),
        (b"nlu: \xff", ": not UTF-8 at byte 5"),
        ("nlu:\n- lookup: a\n", ": the file has no rows"),
    ],
)
def test_file_that_is_no_training_data_is_refused(put, text, reason):
    path = put("a.yml", text)
    assert corpus_refusal(path).startswith(path + reason)
