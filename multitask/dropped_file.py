"""A file that was dropped on the page → its rows, within limits, under the name that the person knows."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from multitask.errors import InputError
from multitask.formats import SUFFIXES
from multitask.texts import Row, Unreadable, rows_of

KINDS = [".txt", *SUFFIXES]


def read_dropped(path: str, most_rows: int, most_characters: int) -> list[Row]:
    """Its rows: a text a line, or those of a corpus file. A text that is too long is a row that can't be read.

    Raises InputError for a file of another kind, without rows or with more than `most_rows`."""
    file = Path(path)
    try:
        return _rows(file, most_rows, most_characters)
    except InputError as error:
        raise InputError(_named(str(error), file)) from None


def _rows(file: Path, most_rows: int, most_characters: int) -> list[Row]:
    if file.suffix.lower() not in KINDS:
        raise InputError(f"{file.name}: a text file (.txt), CSV or JSON Lines (.csv, .jsonl) can be read")
    rows = list(islice(_short(file, most_characters), most_rows + 1))
    if b"\0" in file.read_bytes():
        raise InputError(f"{file.name}: is no text file")
    if not rows:
        raise InputError(f"{file.name}: has no rows")
    if len(rows) > most_rows:
        raise InputError(f"{file.name}: more than {most_rows:,} rows; task_5.py predict reads files of any size")
    return rows


def _short(file: Path, most: int) -> Iterator[Row]:
    for number, row in enumerate(rows_of(str(file)), 1):
        if isinstance(row, Unreadable):
            yield Unreadable(_named(row.reason, file))
        elif len(row.text) > most:
            yield Unreadable(f"{file.name}: row {number}: {len(row.text):,} characters; at most {most:,}")
        else:
            yield row


def _named(reason: str, file: Path) -> str:
    return reason.replace(str(file), file.name)
