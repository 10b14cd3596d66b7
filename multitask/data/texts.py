"""Texts without annotation: rows to predict, one by one, and the lines of text files."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from multitask.common.errors import InputError
from multitask.data.examples import Example, unannotated_example
from multitask.data.formats.files import SUFFIXES, read_records
from multitask.data.formats.lines import Record, decode, input_errors
from multitask.data.notices import Notices
from multitask.data.rows import BadRow, is_valid_utf8

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UnreadableRow:
    """A row that gets no prediction. The reason begins with file:line or the number of the text."""

    reason: str


Row = Example | UnreadableRow


def is_blank(row: Example) -> bool:
    """Whether a row has no words: it has no class and no entities."""
    return not row.words


def read_rows(path: str) -> Iterator[Row]:
    """The rows of a corpus file or folder, without their annotation, or else the lines of a text file.

    "-" is standard input. The text of a row of tokens is the tokens, joined by spaces. After the last row,
    logs what a person should know about the file. Raises InputError if the file as a whole can't be read."""
    notices = Notices()
    with input_errors(path):
        if path != "-" and (Path(path).is_dir() or Path(path).suffix.lower() in SUFFIXES):
            return _rows(path, read_records(path, notices, annotated=False), notices)
        records = ((line, {"text": text}) for line, text in read_texts(path, strict=False))
        return _rows(path, records, notices)


def _rows(path: str, records: Iterator[Record], notices: Notices) -> Iterator[Row]:
    with input_errors(path):
        for line, record in records:
            try:
                yield unannotated_example(record)
            except BadRow as reason:
                yield UnreadableRow(f"{path}:{reason.line or line}: {reason}")
    notices.unknown_keys.clear()  # prediction needs the words alone
    for notice in notices.lines(path, ()):
        logger.warning(notice)


def rows_from_texts(texts: Sequence[str], max_characters: int | None = None) -> Iterator[Row]:
    """The rows of texts from a command line or a request. Texts over `max_characters` are unreadable rows."""
    for number, text in enumerate(texts, 1):
        try:
            if max_characters is not None and len(text) > max_characters:
                raise BadRow(f"{len(text):,} characters; at most {max_characters:,} are read")
            yield unannotated_example({"text": text})
        except BadRow as reason:
            yield UnreadableRow(f"text {number}: {reason}")


def read_texts(path: str, strict: bool = True) -> Iterator[tuple[int, str]]:
    """(line, text) for each line of a text file; an empty line is an empty text. "-" is standard input.

    Raises InputError if there is no such file, if its lines end in \\r alone or, unless `strict` is False,
    at a line that is not UTF-8. Otherwise its bytes become lone surrogates."""
    with input_errors(path):
        if path != "-" and not Path(path).is_file():
            reason = "not a text file; - is standard input" if Path(path).exists() else "no such file"
            raise InputError(f"{path}: {reason}")
    return _lines(path, strict)


def _lines(path: str, strict: bool) -> Iterator[tuple[int, str]]:
    with input_errors(path), open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
        for line, raw in enumerate(file, 1):
            text = decode(raw, line, path)
            if line == 1 and "\r" in text and not raw.endswith(b"\n"):
                raise InputError(f"{path}:1: lines end in \\r alone; save the file with \\n as line end")
            if strict and not is_valid_utf8(text):
                raise InputError(f"{path}:{line}: not UTF-8")
            yield line, text
