"""Rows of megabytes are read in linear time."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

SIZE = 10 << 20  # characters of a large row


def adjacent_entities(number: int) -> str:
    """A text of one long word, cut into entities of two characters."""
    entities = [{"start": 2 * i, "end": 2 * i + 2, "label": "X"} for i in range(number)]
    return json.dumps({"text": "ab" * number, "entities": entities}) + "\n"


def overlapping_entities(number: int) -> str:
    """A long text with entities that all end where it ends."""
    entities = [{"start": i, "end": 5 * number, "label": "X"} for i in range(number)]
    return json.dumps({"text": "." * 5 * number, "entities": entities}) + "\n"


LARGE = {
    "one word.jsonl": lambda: json.dumps({"text": "a" * SIZE}) + "\n",
    "dots.jsonl": lambda: json.dumps({"text": "." * (SIZE // 8)}) + "\n",
    "one key.jsonl": lambda: json.dumps({"text": "a", "k" * SIZE: 1}) + "\n",
    "many keys.jsonl": lambda: json.dumps({"text": "a", **{str(i): 1 for i in range(SIZE // 16)}}) + "\n",
    "tokens.jsonl": lambda: json.dumps({"tokens": ["a"] * (SIZE // 8), "tags": ["B-X"] * (SIZE // 8)}) + "\n",
    "entities.jsonl": lambda: adjacent_entities(SIZE // 64),
    "overlapping.jsonl": lambda: overlapping_entities(SIZE // 64),
    "comment.conll": lambda: f"# {' ' * SIZE}\n# {'a' * SIZE}\n# label = {'b ' * (SIZE // 2)}\na O\n",
    "columns.conll": lambda: "a " * (SIZE // 2) + "O\n",
    "sentence.conll": lambda: "a O\n" * (SIZE // 8),
    "quoted.csv": lambda: 'text,label\n"' + 'a "" \n' * (SIZE // 6) + '",x\n',
    "columns.csv": lambda: "text,label\n" + "a," * (SIZE // 2) + "\n",
    "quotes.csv": lambda: "text,label\n" + '"' * SIZE + "\nb,x\n",
    "row.tsv": lambda: "text\tlabel\n" + "a" * SIZE + "\tx\n",
}  # fmt: skip
READ = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
from reading import read_corpus
result = read_corpus([sys.argv[1]], "skip")
assert result.rows == len(result.examples) + len(result.skipped) > 0
assert all(len(line) < 500 for line in [*result.skipped, *result.notices])
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", LARGE)
def test_row_of_megabytes_takes_linear_time(put, name):
    # linear time is seconds here, quadratic time is hours
    path = put(name, LARGE[name]())
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/tests"}
    ended = subprocess.run(
        [sys.executable, "-c", READ, path], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
