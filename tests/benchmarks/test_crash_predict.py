"""Predictions that are killed and resumed after changes end right or are refused; the rest is counted."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from benchmarks import crash_predict

NEVER_CHECKED = """
from multitask.inference.resumable_output import ResumableOutput
ResumableOutput.resume = lambda *_: False
"""


@pytest.mark.parametrize(("change", "right"), [("", True), (NEVER_CHECKED, False)])
def test_no_trial_ends_with_another_file(tiny, change, right):
    """In a process of its own, which forks. A resume that takes every output for finished is found out."""
    words = ["crash_predict.py", "--trials", "6" if right else "2", "--rows", "3", "--backbone", str(tiny)]
    begin = "from benchmarks import crash_predict; crash_predict.main()"
    code = f"import sys; sys.argv = {words}\n{change}\n{begin}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert ended.returncode == (0 if right else 1), ended.stderr
    results = json.loads(ended.stdout.splitlines()[-1])["results"]
    assert results["wrong"] == len(results["failures"]) == (0 if right else results["trials"])
    assert results["right"] + results["refused"] + results["wrong"] == results["trials"] <= results["kills"]
    assert crash_predict.table({"crash_predict": {"results": results}}) in ended.stdout
