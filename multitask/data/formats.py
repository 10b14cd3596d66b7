"""File formats → rows in their JSON Lines form: JSON Lines, CoNLL columns, CSV/TSV and JointBERT folders."""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Literal

from multitask.common.errors import InputError
from multitask.common.strict_json import RepeatedKey, loads_row
from multitask.data.rows import BadRow, abbreviate

JSON_LINES = (".jsonl", ".json", ".ndjson")
CONLL = (".conll", ".bio", ".iob", ".iob2")
_TABLES = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*JSON_LINES, *_TABLES, *CONLL)
_JOINTBERT = ("seq.in", "seq.out", "label")

_COMMENT = re.compile(r"#\s*(?:([\w.:-]+)\s*=\s*(.*)|new(?:doc|par)\b.*)")
_CARRIAGE_RETURN = "a carriage return inside the line; lines end in \\n or \\r\\n"
_CSV_ERRORS = {"unexpected end of data": "a quote that is never closed"}
_CSV_FIELD_LIMIT = 64 << 20  # bytes; the csv module's own limit of 128 KiB is a long article
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


def read_records(path: str, long_rows: list[tuple[int, int]] | None = None) -> Iterator[Record]:
    """Yield the rows of a file or a JointBERT folder. The suffix or else the content tells the format.

    Appends (number of lines, first line) of each row of a table that takes several lines to `long_rows`.
    Raises InputError if the file as a whole can't be read."""
    if Path(path).is_dir():
        return _jointbert(Path(path))
    if not Path(path).is_file():
        reason = "is a pipe or a device, not a file" if Path(path).exists() else "no such file"
        raise InputError(f"{path}: {reason}")
    suffix = Path(path).suffix.lower()
    if suffix in JSON_LINES:
        return _json_lines(path)
    if suffix in _TABLES:
        return _table(path, _TABLES[suffix], [] if long_rows is None else long_rows)
    if suffix in CONLL:
        return _conll(path)
    with open(path, "rb") as file:
        begins_with_brace = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    return _json_lines(path) if begins_with_brace else _conll(path)


def source_files(path: str | Path) -> list[Path]:
    """The files that are read for a path: itself, or files of a JointBERT folder. Empty if there are none.

    Raises InputError for a link out of the folder: the author of a folder must not choose other files."""
    path = Path(path)
    if not path.is_dir():
        return [path] if path.is_file() else []
    files = [path / name for name in _JOINTBERT if (path / name).exists() or (path / name).is_symlink()]
    for file in files:
        if not file.resolve().is_relative_to(path.resolve()):
            raise InputError(f"{file}: is a link that leads out of its folder; copy the file into it")
        if not file.is_file():
            raise InputError(f"{file}: is not a file")
    return files


def decode(raw: bytes, line: int, path: str | Path) -> str:
    """A line of a file as text, without its line end and, in line 1, without a byte order mark.

    Bytes that are not UTF-8 become lone surrogates. Raises InputError for the mark of another encoding."""
    if line == 1:
        _check_encoding(raw, path)
    # with surrogates, the checks of rows refuse this row only, and not the file
    text = raw.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")
    return text.removeprefix("\ufeff") if line == 1 else text


def _check_encoding(start: bytes, path: str | Path) -> None:
    if start.startswith(_OTHER_ENCODINGS):
        raise InputError(f"{path}:1: UTF-16 or UTF-32, by its byte order mark; save the file as UTF-8")


def _lines(path: str | Path) -> Iterator[tuple[int, str]]:
    # binary files end lines at \n alone: U+2028 and the like are characters of a text
    with open(path, "rb") as file:
        for line, raw in enumerate(file, 1):
            yield line, decode(raw, line, path)


def _split_at_spaces(text: str) -> list[str]:
    # str.split() would also split at white space beyond ASCII, which may be a word here
    return [field for field in text.split(" ") if field]


def _json_lines(path: str) -> Iterator[Record]:
    for line, text in _lines(path):
        if not text.strip():
            continue
        try:
            row = loads_row(text)
        except json.JSONDecodeError as error:
            yield line, BadRow(f"not JSON: {error.msg} at column {error.colno}")
        except RepeatedKey as error:
            yield line, BadRow(f"an object has the key {abbreviate(error.key)} twice")
        except (ValueError, RecursionError):
            yield line, BadRow("JSON that can't be read: nested too deeply, or a number is too long")
        else:
            yield line, row if isinstance(row, dict) else BadRow("a row is a JSON object, {...}")


def _conll(path: str) -> Iterator[Record]:
    first, label, bad = 0, None, None
    words: list[str] = []
    tags: list[str | None] = []
    for line, text in chain(_lines(path), [(0, "")]):
        comment = _COMMENT.fullmatch(text)
        if comment:
            if comment[1] == "label":
                if words or label is not None:
                    reason = "a second label, or one inside a sentence; end sentences with a blank line"
                    bad = bad or BadRow(reason, line)
                label, first = comment[2].strip() or None, first or line
            continue
        if "\r" in text:
            bad = bad or BadRow(_CARRIAGE_RETURN, line)
        fields = text.split("\t") if "\t" in text else _split_at_spaces(text)
        if text.strip() and fields[0] != "-DOCSTART-":
            first = first or line
            words.append(fields[0])
            tags.append(fields[-1] if len(fields) > 1 else None)
            if (tags[-1] is None) != (tags[0] is None):
                bad = bad or BadRow("one column, where other lines of the sentence have a tag", line)
            continue
        if words or label is not None or bad:
            tagged = {"tags": tags} if words and tags[0] is not None else {}
            yield first, bad or {"tokens": words, "label": label, **tagged}
        first, words, tags, label, bad = 0, [], [], None, None


def conll_line(word: str, tag: str | None) -> str:
    """A word and its tag as a line of a CoNLL file. Raises BadRow if they could not be read back."""
    line = word if tag is None else f"{word}\t{tag}"
    if not word.strip() or re.search(r"[\t\r\n]|^\ufeff", word) or (tag is None and " " in word):
        raise BadRow(f"the word {abbreviate(word)} does not fit into a column")
    if word == "-DOCSTART-" or _COMMENT.fullmatch(line):
        raise BadRow(f"the word {abbreviate(word)} would be read as a comment")
    return line


def _table(path: str, delimiter: str, long_rows: list[tuple[int, int]]) -> Iterator[Record]:
    csv.field_size_limit(_CSV_FIELD_LIMIT)
    with open(path, "rb") as file:
        _check_encoding(file.peek(4), path)
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
                long_rows.append((rows.line_num - line + 1, line))
            if len(row) != len(header):
                yield line, BadRow(f"{len(row)} columns, where the first line has {len(header)}")
                continue
            record = dict(zip(header, row))
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


def _jointbert(folder: Path) -> Iterator[Record]:
    names = [path.name for path in source_files(folder)]
    if "seq.in" not in names:
        raise InputError(f"{folder}: no seq.in; JointBERT folders have seq.in, seq.out and label")
    counts = {name: sum(1 for _ in _lines(folder / name)) for name in names}
    if len(set(counts.values())) > 1:
        raise InputError(f"{folder}: " + ", ".join(f"{name} has {n:,} lines" for name, n in counts.items()))
    columns = ((text for _, text in _lines(folder / name)) for name in names)
    line = 0
    for line, values in enumerate(zip(*columns), 1):
        row = dict(zip(names, values))
        if any("\r" in text for text in values):
            yield line, BadRow(_CARRIAGE_RETURN)
            continue
        record = {"tokens": _split_at_spaces(row["seq.in"]), "label": row.get("label", "").strip() or None}
        yield line, {**record, "tags": _split_at_spaces(row["seq.out"])} if "seq.out" in row else record
    if line != counts["seq.in"]:
        raise InputError(f"{folder}: changed while it was read")
