"""Mistakes of a user: one exception class, lists of problems in one message, and missing packages."""

from collections.abc import Sequence
from importlib.util import find_spec


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
