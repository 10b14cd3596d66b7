"""JSON Lines, JSON arrays and single JSON objects → rows."""

import json
import re
from collections.abc import Iterator

from multitask.common.errors import InputError
from multitask.common.strict_json import RepeatedKey, decode_at, loads_row
from multitask.data.formats.lines import FilePart, Record, check_encoding, read_lines
from multitask.data.formats.tools.conversion import Converter
from multitask.data.notices import Notices, abbreviate
from multitask.data.rows import BadRow

_UNREADABLE = "JSON that can't be read: nested too deeply, or a number is too long"
_SPACE = re.compile(r"[ \t\r\n]*")
_ARRAY = re.compile(r"\[\s*([\[{\]]|$)")  # of rows; a list that begins with a string is a row of spaCy's


def read_json_lines(
    path: str, notices: Notices, annotated: bool = True, part: FilePart | None = None
) -> Iterator[Record]:
    """Yield the rows of a JSON Lines file, of a JSON array, or of one JSON object over several lines.

    A `part` is one of a JSON Lines file."""
    converter = Converter(path, notices, annotated)
    if part or has_a_value_per_line(path):
        return _read_lines(path, converter, part)
    return (
        (line, value if isinstance(value, BadRow) else converter.convert(value, line))
        for line, value in _values_of_file(path)
    )


def has_a_value_per_line(path: str) -> bool:
    """Whether the first line of a file is a JSON value of its own, and no array of rows."""
    first = next((text.strip() for _, text in read_lines(path) if text.strip()), "")
    if _ARRAY.match(first):
        return False
    try:
        loads_row(first)
    except json.JSONDecodeError as error:
        # {"a": 1, goes on in the next line; {"a" 1} is a mistake in this one
        return error.pos < len(first) or not _is_one_value(_read_whole(path))
    except (ValueError, RecursionError):
        pass
    return True


def _read_lines(path: str, converter: Converter, part: FilePart | None) -> Iterator[Record]:
    convert = converter.convert
    for line, text in read_lines(path, part):
        if not text.strip():
            continue
        try:
            value = loads_row(text)
        except json.JSONDecodeError as error:
            yield line, BadRow(f"not JSON: {error.msg} at column {error.colno}")
        except RepeatedKey as error:
            yield line, _repeated(error)
        except (ValueError, RecursionError):
            yield line, BadRow(_UNREADABLE)
        else:
            yield line, convert(value, line)


def _read_whole(path: str) -> str:
    # in memory: 1 byte per character of a Latin text, 2 in most other scripts, 4 with emoji; twice that while
    # it is read. The values are decoded one by one
    with open(path, "rb") as file:
        check_encoding(file.peek(4), path)
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        return file.read()


def _is_one_value(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _values_of_file(path: str) -> Iterator[tuple[int, object]]:
    """Yield the value of a file or the items of its array, each with the line where it begins."""
    text = _read_whole(path)
    at = _skip_space(text, 0)
    in_array = text[at] == "["
    at = _skip_space(text, at + in_array)
    line, counted = 1, 0
    closed = in_array and text[at : at + 1] == "]"
    while not closed:
        line, counted = line + text.count("\n", counted, at), at
        value, at = _value_at(text, at, line, path)
        yield line, value
        at = _skip_space(text, at)
        if not in_array:
            return
        closed = text[at : at + 1] == "]"
        if not closed and text[at : at + 1] != ",":
            line += text.count("\n", counted, at)
            raise InputError(f"{path}:{line}: not JSON: a comma or the end of the array is missing")
        at = _skip_space(text, at + (not closed))
    if (at := _skip_space(text, at + 1)) < len(text):
        line += text.count("\n", counted, at)
        raise InputError(f"{path}:{line}: not JSON: more text after the end of the array")


def _value_at(text: str, at: int, line: int, path: str) -> tuple[object, int]:
    """The value at a position, or a BadRow, and the position after it."""
    try:
        return decode_at(text, at)
    except json.JSONDecodeError as error:
        problem = f"{path}:{error.lineno}: not JSON: {error.msg} at column {error.colno}"
        raise InputError(problem) from None
    except RepeatedKey as error:
        return _repeated(error), json.JSONDecoder().raw_decode(text, at)[1]
    except (ValueError, RecursionError):
        raise InputError(f"{path}:{line}: {_UNREADABLE}") from None


def _skip_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _repeated(error: RepeatedKey) -> BadRow:
    return BadRow(f"an object has the key {abbreviate(error.key)} twice")
