"""A job that is killed (-9) at changes of the disk ends, when it is started again, with the same files."""

import signal
import subprocess
import sys
from pathlib import Path

from cluster_jobs import contents, words, write_input
from conftest import ROOT

# runs in a process of its own, since a fork must not follow threads: every fork begins like a new start
SWEEP = """
import os, sys
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
import pyarrow.parquet, task_5
with __import__('contextlib').suppress(ImportError):
    import pandas  # which pyarrow imports where it is installed
from benchmarks.forks import Kill, call_in_fork
from cluster_jobs import contents, run_here
words = {words!r}
task_5.Predictor.from_pretrained(words[words.index("--model") + 1])  # imports what the forks need
for change in {changes!r}:
    os.makedirs(f"job-{{change}}/in")
    for name in os.listdir("in"):
        os.link(f"in/{{name}}", f"job-{{change}}/in/{{name}}")
    os.chdir(f"job-{{change}}")
    killed = call_in_fork(lambda: run_here(words), Kill(0, change) if change else None)
    ended = call_in_fork(lambda: run_here(words))
    print(change, killed.status, ended.status, ended.message)
    os.chdir("..")
"""


def test_killed_at_a_change_of_the_disk_no_row_is_lost_or_doubled(trained, tmp_path):
    write_input(tmp_path / "in")
    changes = [0, 3, 6, 7, 31]  # of _job.json, of a shard, and of _job.json at the end
    arguments = words(trained)
    code = SWEEP.format(root=str(ROOT), tests=str(Path(__file__).parent), words=arguments, changes=changes)
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    statuses = [tuple(map(int, line.split()[:3])) for line in ended.stdout.splitlines()]
    assert [(change, last) for change, _, last in statuses] == [(change, 0) for change in changes], (
        ended.stdout
    )
    assert [killed for _, killed, _ in statuses] == [0] + [-signal.SIGKILL] * (len(changes) - 1)
    whole = contents(tmp_path / "job-0" / "out")
    for change in changes[1:]:
        assert contents(tmp_path / f"job-{change}" / "out") == whole, change
