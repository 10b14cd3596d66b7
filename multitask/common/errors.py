"""A user's mistake, and how a script ends: one clear line and a status, never a traceback."""

import os
import signal
import sys
from collections.abc import Callable, Sequence


class InputError(ValueError):
    """What was given can't be used. The message says what, where and what to do."""


def report(problems: Sequence[str], most: int = 20) -> str:
    """The first `most` problems, a line each, then how many more there are."""
    more = len(problems) - most
    return "\n".join([*problems[:most], *([f"... and {more:,} more"] if more > 0 else [])])


_speaks = True


def say(message: str) -> None:
    """A message to the person at the shell: standard error, since results go to standard output."""
    if _speaks:
        _write(message)


def mute() -> None:
    """Say nothing from now on but why the process ends: of several alike, one speaks."""
    global _speaks
    _speaks = False


def _write(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def run(main: Callable[[], None]) -> None:
    """Call a script's main. Exit status 2 for an InputError, 1 where the disk fails; 130 for Ctrl-C, or what
    belongs to the signal that a KeyboardInterrupt has as its `number`."""
    interrupted = False

    def note(number: int, frame: object) -> None:
        nonlocal interrupted
        interrupted = True
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, note)
    try:
        try:
            main()
        except Exception as error:
            # libraries in Rust (safetensors) make errors of their own of a KeyboardInterrupt that meets them
            if interrupted:
                raise KeyboardInterrupt from error
            raise
    except InputError as error:
        _write(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt as stop:
        _write(str(stop) or "interrupted")
        sys.exit(128 + getattr(stop, "number", signal.SIGINT))
    except BrokenPipeError:
        # the reader (head, less) has gone: what Python would still flush at exit has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        _write(f"error: {error.strerror or error}: {error.filename}" if error.filename else f"error: {error}")
        sys.exit(1)
