"""How a script shows messages on standard error and ends with an exit status instead of a traceback.

The package logs to the logger "multitask". A script shows these messages as they are; a program that imports
the package configures logging as for any other library."""

import logging
import os
import signal
import sys
import unicodedata
from collections.abc import Callable
from types import FrameType

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
    """Show no messages from now on: only one of several processes shows them."""
    logger.setLevel(logging.CRITICAL)


def run_script(main: Callable[[], None]) -> None:
    """Call a script's main, show its messages, and exit with a status if it raises.

    2: InputError. 1: OSError. 141: the reader of the output has closed it. 130: Ctrl-C. 128 + n: a
    KeyboardInterrupt whose `number` is signal n."""
    show_messages()
    interrupted = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, handle)
    try:
        try:
            main()
        except Exception as error:
            # libraries in Rust (safetensors) turn a KeyboardInterrupt into another exception
            if interrupted:
                raise KeyboardInterrupt from error
            raise
    except InputError as error:
        _end(f"error: {error}", 2)
    except KeyboardInterrupt as stop:
        _end(str(stop) or "interrupted", 128 + getattr(stop, "number", signal.SIGINT))
    except BrokenPipeError:
        # the reader (head, less) is gone: Python's flush at exit would fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        _end(
            f"error: {error.strerror or error}: {error.filename}" if error.filename else f"error: {error}", 1
        )


def printable(text: str) -> str:
    """Escape control characters, which a terminal would obey: ESC becomes \\\\x1b."""
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) == "Cc" else character
        for character in text
    )


def _end(message: str, status: int) -> None:
    # not by the logger, which most of several processes hide: each process must say why it ends
    print(message, file=sys.stderr, flush=True)
    sys.exit(status)
