"""The same three sentences as files of several formats, and shortcuts for reading files in tests."""

import json

import pytest
from reading import read_corpus

from multitask.common.errors import InputError
from multitask.data.examples import Example
from multitask.data.labels import Span
from multitask.data.readers import ReadResult

SENTENCES = [
    (["Anna", "won", "in", "New", "York"], [Span(0, 1, "PER"), Span(3, 5, "LOC")], "sports"),
    (["A", "vote"], [], "politics"),
    (["NA", "null", "None"], [], "NA"),
]
JSONL = [
    {"tokens": SENTENCES[0][0], "tags": ["B-PER", "O", "O", "B-LOC", "I-LOC"], "label": "sports"},
    {"tokens": SENTENCES[1][0], "tags": ["O", "O"], "label": "politics"},
    {"tokens": SENTENCES[2][0], "tags": ["O", "O", "O"], "label": "NA"},
]
CONLL = """-DOCSTART- O

# sent_id = 1
# label = sports
Anna B-PER
won O
in O
New B-LOC
York I-LOC

# label = politics
A O
vote O


# label = NA
NA O
null O
None O
"""


def lines(rows: list[dict]) -> str:
    """Rows as JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


FILES = {
    "a.jsonl": lines(JSONL),
    "a.conll": CONLL,
    "a.csv": "text,label\nAnna won,sports\nA vote,politics\n",
    "a.tsv": "text\tlabel\nAnna won\tsports\nA vote\tpolitics\n",
}


def content(examples: list[Example]) -> list[tuple]:
    return [(example.words, example.spans, example.label) for example in examples]


def read(path: str) -> ReadResult:
    """Read a file, and check that every row is an example or skipped."""
    result = read_corpus([path], "skip")
    assert result.rows == len(result.examples) + len(result.skipped)
    return result


def skipped(path: str) -> list[str]:
    """The reasons why rows of a file can't be used, each with its line."""
    return [reason.removeprefix(f"{path}:") for reason in read(path).skipped]


def refusal(function, argument) -> str:
    """The one line of the InputError that a call raises, at once or while its result is read."""
    with pytest.raises(InputError) as error:
        list(function(argument))
    assert "\n" not in str(error.value)
    return str(error.value)


def corpus_refusal(path: str) -> str:
    """The one line of the InputError that reading a corpus file raises."""
    return refusal(lambda path: read_corpus([path]).examples, path)
