"""Mistakes of a user: one exception class, lists of problems in one message, missing packages, and files that
would be read and written at once."""

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path


class InputError(ValueError):
    """The input can't be used. The message says what is wrong, where, and what to do."""


def list_problems(problems: Sequence[str], limit: int = 20) -> str:
    """The first `limit` problems, one per line, then how many more there are."""
    more = len(problems) - limit
    return "\n".join([*problems[:limit], *([f"... and {more:,} more"] if more > 0 else [])])


def one_line(error: Exception) -> str:
    """An error's class and the beginning of its message, for errors of other libraries."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def require_packages(names: Sequence[str], needed_for: str, requirements_file: str) -> None:
    """Raises InputError in one line that names the packages which are not installed.

    Args:
        names: top-level packages, as they are imported. They are looked for, but not imported.
        needed_for: the subject of the message, "export".
        requirements_file: the file that installs them, "requirements-export.txt"."""
    if missing := [name for name in names if find_spec(name) is None]:
        raise InputError(f"{needed_for} needs {', '.join(missing)}: pip install -r {requirements_file}")


def check_not_read(written: Iterable[Path | int], read: Iterable[Path | int]) -> None:
    """Raises InputError if a file to write is also one to read, under any name or link.

    A file is a path, or the handle of standard input (0) or output (1). One that does not exist is no file
    to read."""
    sources = [(source, facts) for source in read if (facts := _regular_file(source))]
    for target in written:
        facts = _regular_file(target)
        for source, other in sources:
            if facts and os.path.samestat(facts, other):
                names = ["standard input", "standard output"]
                one, two = (names[name] if isinstance(name, int) else str(name) for name in (target, source))
                also = "is read too" if one == two else f"is the same file as {two}, which is read"
                raise InputError(f"{one}: {also}; write to another file")


def _regular_file(name: Path | int) -> os.stat_result | None:
    with suppress(OSError, ValueError):  # also for a path that no file can have
        facts = os.stat(name)
        return facts if stat.S_ISREG(facts.st_mode) else None
    return None
