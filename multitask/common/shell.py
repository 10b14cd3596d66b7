"""What a script shows its user: messages on standard error, and an exit status instead of a traceback.

The package logs to the logger "multitask". A script shows these messages as they are; a program that imports
the package configures logging as for any other library."""

import logging
import os
import signal
import sys
import unicodedata
from collections.abc import Callable

from multitask.common.errors import InputError

logger = logging.getLogger("multitask")


class StandardErrorHandler(logging.Handler):
    """Writes messages to the current standard error, since results go to standard output."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def show_messages() -> None:
    """Show the package's messages of level INFO and above. Calling it again changes nothing."""
    if not any(isinstance(handler, StandardErrorHandler) for handler in logger.handlers):
        logger.addHandler(StandardErrorHandler())
        logger.setLevel(logging.INFO)
        logger.propagate = False


def hide_messages() -> None:
    """Show no messages from now on: of several processes with the same messages, one shows them."""
    logger.setLevel(logging.CRITICAL)


def run_script(main: Callable[[], None]) -> None:
    """Call a script's main, show its messages, and exit with the status of how it ended.

    2 for an InputError, 1 for an error of the disk, 141 where the reader of the output is gone, 130 for
    Ctrl-C, or 128 plus the `number` of the signal that a KeyboardInterrupt carries."""
    show_messages()
    interrupted = False

    def handle(number: int, frame: object) -> None:
        nonlocal interrupted
        interrupted = True
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, handle)
    try:
        try:
            main()
        except Exception as error:
            # libraries in Rust (safetensors) turn a KeyboardInterrupt into an error of their own
            if interrupted:
                raise KeyboardInterrupt from error
            raise
    except InputError as error:
        _end(f"error: {error}", 2)
    except KeyboardInterrupt as stop:
        _end(str(stop) or "interrupted", 128 + getattr(stop, "number", signal.SIGINT))
    except BrokenPipeError:
        # the reader (head, less) is gone: what Python would still flush at exit has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        _end(
            f"error: {error.strerror or error}: {error.filename}" if error.filename else f"error: {error}", 1
        )


def printable(text: str) -> str:
    """Text without characters that a terminal obeys: a control character becomes \\\\x1b and the like."""
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) == "Cc" else character
        for character in text
    )


def _end(message: str, status: int) -> None:
    # not by the logger: every one of several processes says why it ends
    print(message, file=sys.stderr, flush=True)
    sys.exit(status)
