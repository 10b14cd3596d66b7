"""Starts task_6.py in its own process, on a free port."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.processes import check, family

ROOT = Path(__file__).resolve().parent.parent
TASK_6 = (str(ROOT / "task_6.py"), "--port", "0")
_ADDRESS = re.compile(r"Page: http://127\.0\.0\.1:(\d+)/")


class Server(NamedTuple):
    """A running server."""

    process: subprocess.Popen
    port: int
    started: float  # time.perf_counter() at its start
    messages: Path  # file with its messages

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end → the exit status."""
        self.process.send_signal(number)
        return self.process.wait()


@contextmanager
def serving(
    folder: Path,
    model: str,
    words: Sequence[str] = TASK_6,
    environment: Mapping[str, str | None] | None = None,
) -> Iterator[Server]:
    """Start `python WORDS --model MODEL`, wait until it serves, and at the end kill it with all its children.

    Args:
        folder: gets its messages.
        environment: changes to the environment; a variable that is None is removed.

    Raises:
        InputError: it ended before it served; the text is its own last message."""
    path, started = folder / "messages", time.perf_counter()
    variables = {**os.environ, **(environment or {})}
    with open(path, "w") as messages:
        process = subprocess.Popen(
            [sys.executable, *words, "--model", model],
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            env={name: value for name, value in variables.items() if value is not None},
        )
    try:
        line = process.stdout.readline()
        if not (address := _ADDRESS.match(line)):
            process.stdout.close()
            check(process.wait() or 1, path.read_text(errors="replace"))
        yield Server(process, int(address[1]), started, path)
    finally:
        for member in family(process.pid):
            os.kill(member.number, signal.SIGKILL)
        process.wait()
        process.stdout.close()
