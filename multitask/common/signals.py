"""SIGINT and SIGTERM in a run: it stops at a point where its files are consistent."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import compress

from multitask.common import distributed

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedBySignal(KeyboardInterrupt):
    """A signal asks the run to end; `number` is the signal's number."""

    def __init__(self, number: int, message: str = ""):
        super().__init__(message)
        self.number = number

    def with_hint(self, hint: str) -> "StoppedBySignal":
        """The same stop, with a message that names the signal and gives a hint."""
        return StoppedBySignal(self.number, f"stopped by {signal.Signals(self.number).name}; {hint}")


class StopSignals:
    """Context in which the first signal raises StoppedBySignal; a second one ends the process at once.

    A single process stops anywhere, but in a `deferred` block only at its end. Several processes stop
    together, at the end of a `deferred` block: all of them must reach it."""

    def __init__(self) -> None:
        self.number, self.is_deferred, self.raised = 0, False, False

    def __enter__(self) -> "StopSignals":
        self.before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        # libraries in Rust (safetensors) turn a KeyboardInterrupt into another exception
        if self.raised and isinstance(error, Exception):
            raise StoppedBySignal(self.number) from error

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Context of a block that a signal does not interrupt. Raises StoppedBySignal at its end instead."""
        self.is_deferred = True
        try:
            yield
        finally:
            self.is_deferred = False
        received = distributed.any_process([self.number == number for number in _SIGNALS])
        if number := next(compress(_SIGNALS, received), None):
            raise StoppedBySignal(number)

    def _handle(self, number: int, frame: object) -> None:
        self.number = number
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        if not self.is_deferred and distributed.world_size() == 1:
            self.raised = True
            raise StoppedBySignal(number)
