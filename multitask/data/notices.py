"""What a person should know about the rows of a file that were used: each message once, with a count."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence

from multitask.common.spelling import closest_name

_MAX_UNKNOWN_KEYS = 20  # named per file; the rest is counted
_LISTED = 12  # names that a message lists before it counts the rest


class Notices:
    """Notices about one file, collected while its rows are read.

    `unknown_keys` counts the keys of rows that are not read; `long_rows` has (number of lines, first line) of
    each row of a table that takes several lines."""

    def __init__(self) -> None:
        self.unknown_keys: Counter[str] = Counter()
        self.long_rows: list[tuple[int, int]] = []
        self._rows: Counter[str] = Counter()
        self._first_lines: dict[str, int] = {}

    def add(self, message: str, line: int) -> None:
        """Note a message about the row that begins at this line."""
        self._rows[message] += 1
        self._first_lines.setdefault(message, line)

    def lines(self, path: str, known_keys: tuple[str, ...]) -> Iterator[str]:
        """The notices as lines of text. `known_keys` are names that an unknown key may mean."""
        for message, count in self._rows.items():
            rows = f" ({count:,} rows; this is the first)" if count > 1 else ""
            yield f"{path}:{self._first_lines[message]}: {message}{rows}"
        if self.long_rows:
            lines, first = max(self.long_rows, key=lambda row: row[0])
            yield (
                f"{path}: {len(self.long_rows):,} rows take several lines in quotes; the longest takes "
                f"{lines:,}, from line {first:,} on (check that no quote is left open)"
            )
        for key, count in self.unknown_keys.most_common(_MAX_UNKNOWN_KEYS):
            # a dot does not separate sections here, and one letter is too little to guess from
            near = closest_name(key[:40].replace(".", "_"), known_keys, 0.65) if len(key) > 1 else None
            suggestion = f"; did you mean {near}?" if near else ""
            yield f"{path}: {abbreviate(key)} in {count:,} rows is not read{suggestion}"
        if (more := len(self.unknown_keys) - _MAX_UNKNOWN_KEYS) > 0:
            yield f"{path}: {more:,} more keys are not read"


def abbreviate(value: object) -> str:
    """A value from a file, cut to 60 characters for a message."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    text = value if isinstance(value, str) else json.dumps(value)
    start = repr(text[:60]) if isinstance(value, str) else text[:60]
    return start if len(text) <= 60 else f"{start}..."


def truncate(text: str, length: int = 80) -> str:
    """The first `length` characters of a text, with an ellipsis if there are more."""
    return text if len(text) <= length else f"{text[:length]}…"


def listed(names: Sequence[str]) -> str:
    """Names for a message: the first ones, and the number of the others."""
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
