"""Texts without annotation: rows to predict, one by one, and the lines of text files."""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from multitask.common.errors import InputError
from multitask.data.examples import Example, unannotated_example
from multitask.data.formats.files import JSON_LINES, PARQUET, SUFFIXES, read_records, source_files
from multitask.data.formats.json_lines import read_json_lines
from multitask.data.formats.lines import FilePart, Record, decode, input_errors, open_part
from multitask.data.formats.parquet import read_parquet
from multitask.data.notices import Notices
from multitask.data.rows import BadRow, is_valid_utf8

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UnreadableRow:
    """A row that gets no prediction. The reason begins with file:line or the number of the text."""

    reason: str


Row = Example | UnreadableRow


MAX_CHARACTERS = 1_000_000  # of a row to predict: 20 million take gigabytes
_MAX_BYTES = 4 * (MAX_CHARACTERS + 1)  # of a line, in UTF-8


def files_read(path: str | None) -> list[Path | int]:
    """The files that are read for --input: none for None, the handle of standard input for "-"."""
    if path is None:
        return []
    return [0] if path == "-" else [Path(path), *source_files(path)]


def is_blank(row: Example) -> bool:
    """Whether a row has no words: it has no class and no entities."""
    return not row.words


def read_rows(path: str) -> Iterator[Row]:
    """The rows of a corpus file or folder, without their annotation, or else the lines of a text file.

    "-" is standard input. The text of a row of tokens is the tokens, joined by spaces. After the last row,
    logs what a person should know about the file. A row of more than MAX_CHARACTERS is unreadable. Raises
    InputError if the file as a whole can't be read."""
    notices = Notices()
    with input_errors(path):
        if path != "-" and (Path(path).is_dir() or Path(path).suffix.lower() in SUFFIXES):
            return _rows(path, read_records(path, notices, annotated=False), notices)
        return _rows(path, _records(read_texts(path, strict=False)), notices)


def read_part(path: str, part: FilePart) -> Iterator[tuple[int, Row]]:
    """(line, row) for each row of a part of a Parquet, JSON Lines or text file; rows as from `read_rows`."""
    suffix = Path(path).suffix.lower()
    if suffix in PARQUET:
        return _numbered_rows(path, read_parquet(path, Notices(), False, part))
    if suffix in JSON_LINES:
        return _numbered_rows(path, read_json_lines(path, Notices(), False, part))
    return _numbered_rows(path, _records(_lines(path, False, part)))


def _numbered_rows(path: str, records: Iterator[Record]) -> Iterator[tuple[int, Row]]:
    with input_errors(path):
        for line, record in records:
            try:
                yield line, unannotated_example(record, MAX_CHARACTERS)
            except BadRow as reason:
                yield line, UnreadableRow(f"{path}:{reason.line or line}: {reason}")


def _rows(path: str, records: Iterator[Record], notices: Notices) -> Iterator[Row]:
    yield from (row for _, row in _numbered_rows(path, records))
    notices.unknown_keys.clear()  # prediction needs the words alone
    for notice in notices.lines(path, ()):
        logger.warning(notice)


def _records(texts: Iterator[tuple[int, str]]) -> Iterator[Record]:
    for line, text in texts:
        too_long = BadRow(f"more than {MAX_CHARACTERS:,} characters; split the text")
        yield line, too_long if len(text) > MAX_CHARACTERS else {"text": text}


def rows_from_texts(texts: Sequence[str], max_characters: int | None = None) -> Iterator[Row]:
    """The rows of texts from a command line or a request. Texts over `max_characters` are unreadable rows."""
    for number, text in enumerate(texts, 1):
        try:
            yield unannotated_example({"text": text}, max_characters or MAX_CHARACTERS)
        except BadRow as reason:
            yield UnreadableRow(f"text {number}: {reason}")


def read_texts(path: str, strict: bool = True) -> Iterator[tuple[int, str]]:
    """(line, text) for each line of a text file; an empty line is an empty text. "-" is standard input.

    Raises InputError if there is no such file, if its lines end in \\r alone or, unless `strict` is False,
    at a line that is not UTF-8 or has more than MAX_CHARACTERS. Otherwise these bytes become lone surrogates,
    and a longer line is cut off after so many bytes that it is still too long."""
    with input_errors(path):
        if path != "-" and not Path(path).is_file():
            reason = "not a text file; - is standard input" if Path(path).exists() else "no such file"
            raise InputError(f"{path}: {reason}")
    return _lines(path, strict)


def _lines(path: str, strict: bool, part: FilePart | None = None) -> Iterator[tuple[int, str]]:
    with input_errors(path), _open(path, part) as file:
        for line, raw in enumerate(_bounded_lines(file), part.line if part else 1):
            text = decode(raw, line, path)
            if strict and len(text) > MAX_CHARACTERS:
                raise InputError(f"{path}:{line}: more than {MAX_CHARACTERS:,} characters; split the text")
            if line == 1 and "\r" in text and not raw.endswith(b"\n"):
                raise InputError(f"{path}:1: lines end in \\r alone; save the file with \\n as line end")
            if strict and not is_valid_utf8(text):
                raise InputError(f"{path}:{line}: not UTF-8")
            yield line, text


def _open(path: str, part: FilePart | None) -> BinaryIO:
    return open(0, "rb", closefd=False) if path == "-" else open_part(path, part)


def _bounded_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file, cut off after the most bytes that MAX_CHARACTERS + 1 can take."""
    while raw := file.readline(_MAX_BYTES):
        yield raw
        while len(raw) == _MAX_BYTES and not raw.endswith(b"\n"):
            raw = file.readline(_MAX_BYTES)


class InputHash:
    """A hash over all texts and words to predict, in order, and the number of rows.

    It does not depend on the reason why a row can't be read: a later version may word the reason differently.
    Notes of version 1 hold a hash over the reasons too."""

    def __init__(self) -> None:
        self.rows, self.unreadable, self._hash = 0, 0, hashlib.blake2b(digest_size=16)

    def update(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.rows += 1
            self.unreadable += isinstance(row, UnreadableRow)
            parts = None if isinstance(row, UnreadableRow) else [row.text, *row.words]
            self._hash.update(json.dumps(parts).encode())

    def hexdigest(self) -> str:
        return self._hash.hexdigest()
