"""Calls a function in a fork of this process, and kills the fork at a moment or at a change of the disk."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple


class Kill(NamedTuple):
    """When to kill a run: after seconds or, if `change` is not 0, at a change of the disk; a write is cut."""

    seconds: float
    change: int


class Ended(NamedTuple):
    """The exit status of a run, or minus the signal, and its last message."""

    status: int
    message: str


def call_in_fork(work: Callable[[], object], kill: Kill | None = None) -> Ended:
    """Call a function in a fork of this process, which must not have used several threads yet."""
    with tempfile.TemporaryFile() as messages:
        if (process := os.fork()) == 0:
            os._exit(_child(work, kill, messages.fileno()))
        if kill and not kill.change:
            time.sleep(kill.seconds)
            os.kill(process, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        messages.seek(0)
        lines = messages.read().decode(errors="replace").strip().splitlines()
    return Ended(status, lines[-1] if lines else "")


def _child(work: Callable[[], object], kill: Kill | None, messages: int) -> int:
    """What the fork does → its exit status."""
    os.dup2(messages, 1)
    os.dup2(messages, 2)
    if kill and kill.change:
        kill_at(kill.change)
    status = 0
    try:
        work()
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        status = 99
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def kill_at(change: int, seen: Callable[[str, object], object] = lambda kind, path: None) -> None:
    """From now on, call `seen` with the kind and the path of every change of the disk, and kill this process
    in the middle of one: the first has the number 1, and 0 is none. A write ends after half of its bytes."""
    from multitask.common import atomic_files

    real, calls = atomic_files.disk, count(1)

    def disk(kind: str, path: object, call: Callable, *arguments: Any) -> Any:
        seen(kind, path)
        if next(calls) == change:
            if kind == "write":
                call(bytes(arguments[0])[: len(arguments[0]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(kind, path, call, *arguments)

    atomic_files.disk = disk
