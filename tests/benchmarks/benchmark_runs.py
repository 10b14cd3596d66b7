"""Runs benchmarks as the shell does, on a small corpus."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT

SHORT = ["model.max_length=32", "model.stride=8"]


@pytest.fixture
def corpus(write_rows, rows, tmp_path):
    """A folder with train, dev and test rows that are annotated for both tasks."""
    both = [row for row in rows if "label" in row and ("tags" in row or "entities" in row)]
    for split, times in (("train", 4), ("dev", 1), ("test", 1)):
        write_rows(f"{split}.jsonl", both * times)
    return tmp_path


def bench(script: str, *words: str) -> SimpleNamespace:
    """Run a benchmark → `tables` as lists of rows of cells, and its last line as `json`."""
    ended = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / script, *map(str, words)], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    *lines, last = ended.stdout.splitlines()
    tables, previous = [], ""
    for line in lines:
        if line.startswith("|"):
            tables += [] if previous.startswith("|") else [[]]
            tables[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        previous = line
    return SimpleNamespace(tables=tables, json=json.loads(last))
