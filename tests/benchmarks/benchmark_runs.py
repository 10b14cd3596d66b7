"""Runs benchmarks on a small corpus, within the process of the tests: each new process would import torch."""

import io
import json
import runpy
import sys
import time
from contextlib import redirect_stdout
from types import SimpleNamespace

import pytest
from conftest import ROOT

from benchmarks import comparison, predict_speed, processes
from benchmarks.processes import Spent

SHORT = ["model.max_length=32", "model.stride=8"]


@pytest.fixture
def corpus(write_rows, rows, tmp_path):
    """A folder with train, dev and test rows that are annotated for both tasks."""
    both = [row for row in rows if "label" in row and ("tags" in row or "entities" in row)]
    for split, times in (("train", 4), ("dev", 1), ("test", 1)):
        write_rows(f"{split}.jsonl", both * times)
    return tmp_path


@pytest.fixture
def bench(shell, monkeypatch):
    """Run the main of a benchmark → `tables` as lists of rows of cells, and its last line as `json`.

    The commands that it measures run in this process, too. A study forks its runs from a process that has
    imported torch."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # a study changes it
    for module in (processes, comparison, predict_speed):
        monkeypatch.setattr(module, "measured", run_here)

    def run(benchmark, *words) -> SimpleNamespace:
        ended = shell(benchmark, *words)
        assert ended.status == 0, ended.err
        *lines, last = ended.out.splitlines()
        tables, previous = [], ""
        for line in lines:
            if line.startswith("|"):
                tables += [] if previous.startswith("|") else [[]]
                tables[-1].append([cell.strip() for cell in line.strip("|").split("|")])
            previous = line
        return SimpleNamespace(tables=tables, json=json.loads(last))

    return run


def run_here(command, *_) -> Spent:
    """Instead of processes.measured: run `python -c CODE`, `python -m MODULE` or `python FILE` here."""
    words, started, old = list(map(str, command[1:])), time.perf_counter(), sys.argv
    with redirect_stdout(io.TextIOWrapper(io.BytesIO())):
        try:
            if words[0] == "-c":
                exec(words[1], {})
            elif words[0] == "-m":
                sys.argv = words[1:]
                runpy.run_module(words[1], run_name="__main__")
            else:
                sys.argv = words
                runpy.run_path(words[0], run_name="__main__")
        finally:
            sys.argv = old
    seconds = max(0.01, time.perf_counter() - started)  # the record has two digits
    return Spent(seconds, 1.0, None, 0.0, 0.0)
