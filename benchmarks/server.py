"""task_6.py as a process of its own, on a port that is free."""

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
    """A server that answers: its process, its port, when it was started, and the file of its messages."""

    process: subprocess.Popen
    port: int
    started: float
    said: Path

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal and wait → its exit status."""
        self.process.send_signal(number)
        return self.process.wait()


@contextmanager
def serving(
    folder: Path,
    model: str,
    words: Sequence[str] = TASK_6,
    environment: Mapping[str, str | None] | None = None,
) -> Iterator[Server]:
    """Start `python WORDS --model MODEL`, with what it says in the folder; at the end it is killed, and all
    that it started. What is None in the environment is left out of it.

    Raises InputError with its own words where it does not come to answer."""
    said, started = folder / "messages", time.perf_counter()
    given = {**os.environ, **(environment or {})}
    with open(said, "w") as messages:
        process = subprocess.Popen(
            [sys.executable, *words, "--model", model],
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            env={name: value for name, value in given.items() if value is not None},
        )
    try:
        line = process.stdout.readline()
        if not (address := _ADDRESS.match(line)):
            process.stdout.close()
            check(process.wait() or 1, said.read_text(errors="replace"))
        yield Server(process, int(address[1]), started, said)
    finally:
        for member in family(process.pid):
            os.kill(member.number, signal.SIGKILL)
        process.wait()
        process.stdout.close()
