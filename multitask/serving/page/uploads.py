"""Reads a file that was uploaded to the page: its rows, within limits, and under the user's name for it."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from multitask.common.errors import InputError
from multitask.data.formats.files import PARQUET, SUFFIXES
from multitask.data.texts import Row, UnreadableRow, read_rows
from multitask.serving.limits import Limits

# a small Parquet file can unpack to gigabytes
KINDS = [".txt", *(suffix for suffix in SUFFIXES if suffix not in PARQUET)]


def read_upload(path: str, limits: Limits) -> list[Row]:
    """Read the rows of a corpus file, or the lines of a text file, and remove the file.

    A text that is too long becomes an UnreadableRow. Raises InputError if the file is of another kind, has no
    rows or too many."""
    file = Path(path)
    try:
        return _rows(file, limits)
    except InputError as error:
        raise InputError(str(error).replace(str(file), file.name)) from None
    finally:
        file.unlink(missing_ok=True)
        with suppress(OSError):  # gradio gives each file a folder
            file.parent.rmdir()


def _rows(file: Path, limits: Limits) -> list[Row]:
    if file.suffix.lower() not in KINDS:
        raise InputError(f"{file.name}: a text file (.txt), CSV or JSON Lines (.csv, .jsonl) can be read")
    rows = list(islice(_limited(file, limits.text_characters), limits.file_rows + 1))
    if b"\0" in file.read_bytes():
        raise InputError(f"{file.name}: is not a text file")
    if not rows:
        raise InputError(f"{file.name}: has no rows")
    if len(rows) > limits.file_rows:
        problem = f"{file.name}: more than {limits.file_rows:,} rows"
        raise InputError(f"{problem}; python task_5.py predict reads files of any size")
    return rows


def _limited(file: Path, limit: int) -> Iterator[Row]:
    for number, row in enumerate(read_rows(str(file)), 1):
        if isinstance(row, UnreadableRow):
            yield UnreadableRow(row.reason.replace(str(file), file.name))
        elif (length := len(row.text or "")) > limit:
            yield UnreadableRow(f"{file.name}: row {number}: {length:,} characters; at most {limit:,}")
        else:
            yield row
