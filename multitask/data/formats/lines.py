"""Lines of UTF-8 files, and what the readers of all formats share."""

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from multitask.common.errors import InputError
from multitask.data.rows import BadRow

CARRIAGE_RETURN = "a carriage return inside the line; lines end in \\n or \\r\\n"
# UTF-32-LE begins like UTF-16-LE
_OTHER_ENCODINGS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)

Record = tuple[int, dict | BadRow]  # the first line of a row, and its JSON Lines form


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


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) for each line of a file, as from `decode`."""
    # binary files end lines at \n alone: U+2028 and the like are characters of a text
    with open(path, "rb") as file:
        for line, raw in enumerate(file, 1):
            yield line, decode(raw, line, path)


def split_at_spaces(text: str) -> list[str]:
    """The fields of a line between spaces."""
    # str.split() would also split at white space beyond ASCII, which may be a word here
    fields = text.split(" ")
    return fields if "" not in fields else [field for field in fields if field]
