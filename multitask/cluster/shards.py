"""Shards: the rows of large files in pieces that are predicted, written and repeated one by one."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from multitask.common.checksums import sha256_of
from multitask.common.errors import InputError
from multitask.data.formats.files import JSON_LINES, PARQUET
from multitask.data.formats.json_lines import has_a_value_per_line
from multitask.data.formats.lines import FilePart, check_encoding, decode, input_errors

MAX_BYTES = 64 << 20  # of a shard's lines
_READ_BYTES = 1 << 20  # at a time of one line: a line may be as long as the file


class Version(NamedTuple):
    """What tells that a file has been changed since it was split."""

    size: int
    modified: int  # nanoseconds


class Shard(NamedTuple):
    """Rows of one file that follow one another. `number` counts the shards of all files, from 0."""

    number: int
    path: str
    part: FilePart
    rows: int
    version: Version

    def __str__(self) -> str:
        return f"{self.path}: {self.rows:,} rows from line {self.part.line:,} on"


class SplitFile(NamedTuple):
    """A file, the SHA-256 of its bytes, and its parts with the number of rows of each."""

    path: str
    sha256: str
    version: Version
    parts: list[tuple[FilePart, int]]


def split_file(path: str, max_rows: int) -> SplitFile:
    """Read a file once, and split it into parts of at most `max_rows` rows.

    Raises InputError if it can't be read or has no rows, and for JSON that is not one object per line."""
    with input_errors(path):
        version = version_of(path)
        suffix = Path(path).suffix.lower()
        if suffix in PARQUET:
            parts = list(_split_parquet(path, max_rows))
        else:
            is_json = suffix in JSON_LINES
            if is_json and not has_a_value_per_line(path):
                raise InputError(f"{path}: not one JSON object per line, which a cluster needs to split it")
            parts = list(_split_lines(path, max_rows, is_json))
        if not sum(rows for _, rows in parts):
            raise InputError(f"{path}: the file has no rows")
        split = SplitFile(path, sha256_of(Path(path)), version, parts)
        if version_of(path) != version:
            raise changed(path)
    return split


def number_shards(files: list[SplitFile]) -> list[Shard]:
    """The shards of all files, in the order of the input."""
    parts = [(file, part, rows) for file in files for part, rows in file.parts]
    return [Shard(i, f.path, part, rows, f.version) for i, (f, part, rows) in enumerate(parts)]


def version_of(path: str) -> Version:
    """The present version of a file."""
    facts = Path(path).stat()
    return Version(facts.st_size, facts.st_mtime_ns)


def changed(path: str) -> InputError:
    """The error for a file that was written to while it was read."""
    return InputError(f"{path}: was changed while it was read; start again when nothing writes to it")


def _split_parquet(path: str, max_rows: int) -> Iterator[tuple[FilePart, int]]:
    import pyarrow
    import pyarrow.parquet as pq

    try:
        rows = pq.read_metadata(path).num_rows
    except pyarrow.ArrowException as error:
        raise InputError(f"{path}: can't be read as Parquet: {str(error).splitlines()[0][:200]}") from None
    for start in range(0, rows, max_rows):
        end = min(rows, start + max_rows)
        yield FilePart(start, end, start + 1), end - start


def _split_lines(path: str, max_rows: int, is_json: bool) -> Iterator[tuple[FilePart, int]]:
    start = position = rows = 0
    line = first = 1
    begins = True  # whether a line begins here
    with open(path, "rb") as file:
        check_encoding(file.peek(4), path)
        while raw := file.readline(_READ_BYTES):
            if begins and not (is_json and _is_blank(raw, line)):
                if rows == max_rows or (rows and position + len(raw) - start > MAX_BYTES):
                    yield FilePart(start, position, first), rows
                    start, first, rows = position, line, 0
                rows += 1
            position += len(raw)
            begins = raw.endswith(b"\n")
            line += begins
    if position > start:
        yield FilePart(start, position, first), rows


def _is_blank(raw: bytes, line: int) -> bool:
    """Whether the reader of JSON Lines takes a line for no row: also one of white space beyond ASCII."""
    return not raw.startswith(b"{") and not decode(raw, line, "").strip()
