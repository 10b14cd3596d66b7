"""SIGINT and SIGTERM in a run: it stops where nothing is half done."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import compress

from multitask.common import distributed

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedBySignal(KeyboardInterrupt):
    """A signal asks the run to end; `number` is the signal's."""

    def __init__(self, number: int, message: str = ""):
        super().__init__(message)
        self.number = number


class StopSignals:
    """While it is entered, the first signal raises Stopped; a second one ends the process at once.

    One process is stopped wherever it is, unless in a `deferred` block, whose end it then waits for. Several
    processes stop together, at the end of a `deferred` block: all of them have to come by there."""

    def __init__(self):
        self.number, self.held, self.raised = 0, False, False

    def __enter__(self) -> "StopSignals":
        self.before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, kind: object, error: BaseException | None, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        # libraries in Rust (safetensors) make errors of their own of an exception that meets them
        if self.raised and isinstance(error, Exception):
            raise StoppedBySignal(self.number) from error

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A block that is done as a whole."""
        self.held = True
        try:
            yield
        finally:
            self.held = False
        came = distributed.any_process([self.number == number for number in _SIGNALS])
        if number := next(compress(_SIGNALS, came), None):
            raise StoppedBySignal(number)

    def _note(self, number: int, frame: object) -> None:
        self.number = number
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        if not self.held and distributed.world_size() == 1:
            self.raised = True
            raise StoppedBySignal(number)
