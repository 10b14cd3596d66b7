"""A file that was dropped on the page → its rows, within limits, under the name that the person knows."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from multitask.common.errors import InputError
from multitask.data.formats import SUFFIXES
from multitask.data.texts import Row, UnreadableRow, read_rows
from multitask.serving.limits import Limits

KINDS = [".txt", *SUFFIXES]


def read_dropped(path: str, limits: Limits) -> list[Row]:
    """Its rows: a text a line, or those of a corpus file. A text that is too long is one that can't be read.

    The file is removed. Raises InputError for one of another kind, without rows or with too many."""
    file = Path(path)
    try:
        return _rows(file, limits)
    except InputError as error:
        raise InputError(_named(str(error), file)) from None
    finally:
        file.unlink(missing_ok=True)
        with suppress(OSError):  # the folder that gradio made for it
            file.parent.rmdir()


def _rows(file: Path, limits: Limits) -> list[Row]:
    if file.suffix.lower() not in KINDS:
        raise InputError(f"{file.name}: a text file (.txt), CSV or JSON Lines (.csv, .jsonl) can be read")
    rows = list(islice(_short(file, limits.text_characters), limits.file_rows + 1))
    if b"\0" in file.read_bytes():
        raise InputError(f"{file.name}: is no text file")
    if not rows:
        raise InputError(f"{file.name}: has no rows")
    if len(rows) > limits.file_rows:
        most = f"{file.name}: more than {limits.file_rows:,} rows"
        raise InputError(f"{most}; python task_5.py predict reads files of any size")
    return rows


def _short(file: Path, most: int) -> Iterator[Row]:
    for number, row in enumerate(read_rows(str(file)), 1):
        if isinstance(row, UnreadableRow):
            yield UnreadableRow(_named(row.reason, file))
        elif (length := len(row.text or "")) > most:
            yield UnreadableRow(f"{file.name}: row {number}: {length:,} characters; at most {most:,}")
        else:
            yield row


def _named(reason: str, file: Path) -> str:
    return reason.replace(str(file), file.name)
