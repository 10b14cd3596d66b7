"""Mistakes of a user: one exception class, and how several problems become one message."""

from collections.abc import Sequence


class InputError(ValueError):
    """The input can't be used. The message says what is wrong, where, and what to do."""


def list_problems(problems: Sequence[str], limit: int = 20) -> str:
    """The first `limit` problems, one per line, then how many more there are."""
    more = len(problems) - limit
    return "\n".join([*problems[:limit], *([f"... and {more:,} more"] if more > 0 else [])])
