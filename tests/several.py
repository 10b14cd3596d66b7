"""Run a script in two processes, each of which reports its threads at the end.

A thread of gloo that is still running at the interpreter's end may abort the process. That happens in few
runs, but every run shows whether such a thread is left."""

import atexit
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
_THREADS = "threads at the end:"


def launch(script: Path, *words: str) -> list[str]:
    """The command line that starts a script in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return [*command, __file__, str(script), *words]


def together(folder: Path, script: Path, *words: str) -> subprocess.CompletedProcess:
    """Run a script in two processes; it must succeed and leave no thread of gloo."""
    ended = subprocess.run(launch(script, *words), cwd=folder, capture_output=True, text=True, env=ONE_THREAD)
    assert ended.returncode == 0, ended.stderr
    threads = re.findall(f"{_THREADS}.*", ended.stderr)
    assert len(threads) == 2 and "gloo" not in "".join(threads), threads
    return ended


def report_threads() -> None:
    names = sorted(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))
    # a single write, since an unbuffered print makes several, between which the other process may write
    os.write(sys.stderr.fileno(), f"{_THREADS} {' '.join(names)}\n".encode())


if __name__ == "__main__":
    atexit.register(report_threads)  # registered first, called last
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
