"""A script in two processes, each of which says at its end which threads it has.

A thread of gloo that is left when the interpreter ends may abort its process, which few runs show: that none
is left can be seen in each."""

import atexit
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
_SAID = "threads at the end:"


def launch(script: Path, *words: str) -> list[str]:
    """The command line."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return [*command, __file__, str(script), *words]


def together(folder: Path, script: Path, *words: str) -> subprocess.CompletedProcess:
    """Run it to its end, which is a good one."""
    ended = subprocess.run(launch(script, *words), cwd=folder, capture_output=True, text=True, env=ONE_THREAD)
    assert ended.returncode == 0, ended.stderr
    last = re.findall(f"{_SAID}.*", ended.stderr)
    assert len(last) == 2 and "gloo" not in "".join(last), last
    return ended


def _say_threads() -> None:
    names = sorted(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))
    # one write, which the other process's words do not part: print makes several where nothing is buffered
    os.write(sys.stderr.fileno(), f"{_SAID} {' '.join(names)}\n".encode())


if __name__ == "__main__":
    atexit.register(_say_threads)  # what is registered first is called last
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
