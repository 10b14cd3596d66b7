"""Lines of UTF-8 files, and what the readers of all formats share."""

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from multitask.common.errors import InputError
from multitask.data.rows import BadRow

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CARRIAGE_RETURN = "a carriage return inside the line; lines end in \\n or \\r\\n"
# UTF-32-LE begins like UTF-16-LE
_OTHER_ENCODINGS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)

_BUFFER = 1 << 20  # bytes

Record = tuple[int, dict | BadRow]  # the first line of a row, and its JSON Lines form


class FilePart(NamedTuple):
    """Rows of a file that follow one another: its bytes or, of a Parquet file, its rows [start, end).

    `line` is the number of the first line or row, from 1 on."""

    start: int
    end: int
    line: int


@contextmanager
def input_errors(path: str) -> Iterator[None]:
    """Turn an OSError into an InputError that names the path."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: {(error.strerror or str(error)).lower()}") from None


def decode(raw: bytes, line: int, path: str | Path) -> str:
    """A line of a file as text, without its line end and, in line 1, without a byte order mark.

    Bytes that are not UTF-8 become lone surrogates. Raises InputError for the mark of another encoding."""
    if line == 1:
        check_encoding(raw, path)
    # with surrogates, the checks of rows refuse this row only, and not the file
    text = raw.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")
    return text.removeprefix("\ufeff") if line == 1 else text


def check_encoding(start: bytes, path: str | Path) -> None:
    """Raises InputError if a file that starts with these bytes is UTF-16 or UTF-32."""
    if start.startswith(_OTHER_ENCODINGS):
        raise InputError(f"{path}:1: UTF-16 or UTF-32, by its byte order mark; save the file as UTF-8")


class _PartOfFile(io.FileIO):
    """A file that is read from one byte to another."""

    def __init__(self, path: str | Path, part: FilePart):
        super().__init__(path)
        self.seek(part.start)
        self._left = part.end - part.start

    def readinto(self, buffer: "WriteableBuffer") -> int:
        count = super().readinto(memoryview(buffer)[: self._left]) or 0
        self._left -= count
        return count


def open_part(path: str | Path, part: FilePart | None = None) -> BinaryIO:
    """Open a file, or a part of one, to read its lines."""
    return open(path, "rb") if part is None else io.BufferedReader(_PartOfFile(path, part), _BUFFER)


def read_lines(path: str | Path, part: FilePart | None = None) -> Iterator[tuple[int, str]]:
    """Yield (line, text) for each line of a file or of a part of it, as from `decode`."""
    # binary files end lines at \n alone: U+2028 and the like are characters of a text
    with open_part(path, part) as file:
        for line, raw in enumerate(file, part.line if part else 1):
            yield line, decode(raw, line, path)


def split_at_spaces(text: str) -> list[str]:
    """The fields of a line between spaces."""
    # str.split() would also split at white space beyond ASCII, which may be a word here
    fields = text.split(" ")
    return fields if "" not in fields else [field for field in fields if field]
