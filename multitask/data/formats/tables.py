"""CSV and TSV tables with the columns text and label → rows."""

import csv
import io
from collections.abc import Iterator
from typing import Literal

from multitask.common.errors import InputError
from multitask.data.formats.lines import Record, check_encoding
from multitask.data.formats.tools.conversion import Converter
from multitask.data.formats.tools.label_studio import from_cells
from multitask.data.notices import Notices, abbreviate
from multitask.data.rows import BadRow

_CSV_ERRORS = {"unexpected end of data": "a quote that is never closed"}
_CSV_FIELD_LIMIT = 64 << 20  # bytes; the csv module's own limit of 128 KiB is a long article


def read_table(path: str, delimiter: str, notices: Notices, annotated: bool = True) -> Iterator[Record]:
    """Yield the rows of a table whose first line names its columns. Notes rows of several lines.

    Rows of Label Studio are read as its JSON_MIN: a cell is then a list of spans, or a class."""
    converter = Converter(path, notices, annotated)
    csv.field_size_limit(_CSV_FIELD_LIMIT)
    with open(path, "rb") as file:
        check_encoding(file.peek(4), path)
        text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
        # tab-separated files have no quoting: a quote there is a character of the text
        quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
        rows = csv.reader(text, delimiter=delimiter, quoting=quoting, strict=True)
        header = _header(path, rows)
        while header:
            line = rows.line_num + 1
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                lines = f" (lines {line} to {rows.line_num})" if rows.line_num > line else ""
                yield line, BadRow(f"not a row of the table: {_CSV_ERRORS.get(str(error), error)}{lines}")
                continue
            if not row:
                continue
            if rows.line_num > line:
                notices.long_rows.append((rows.line_num - line + 1, line))
            if len(row) != len(header):
                yield line, BadRow(f"{len(row)} columns, where the first line has {len(header)}")
                continue
            record = dict(zip(header, row))
            if exported := from_cells(record):
                yield line, converter.convert(exported, line)
            else:
                yield line, {**record, "label": record.get("label") or None}


def _header(path: str, rows: Iterator[list[str]]) -> list[str]:
    """The column names of a table. Empty if the file is."""
    try:
        header = next(rows, None)
    except csv.Error as error:
        reason = _CSV_ERRORS.get(str(error), error)
        raise InputError(f"{path}:1: not a line of column names: {reason}") from None
    if header is None:
        return []
    problem = "" if "text" in header else f"found {abbreviate(', '.join(header))}"
    if repeated := [name for name in ("text", "label") if header.count(name) > 1]:
        problem = f"{repeated[0]} is there twice"
    if problem:
        raise InputError(f"{path}:1: the first line names the columns, text and label; {problem}")
    return header
