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

_COMMENT = re.compile(r"#\s*(?:([\w.:-]+)\s*=\s*(.*)|new(?:doc|par)\b.*)")
JSON_LINES = (".jsonl", ".json", ".ndjson")
_TABLES = {".csv": ",", ".tsv": "\t"}
CONLL = (".conll", ".bio", ".iob", ".iob2")
_JOINTBERT = ("seq.in", "seq.out", "label")
_MISSING = "no such file"
_RETURN = "a carriage return inside the line; lines end in \\n or \\r\\n"
SUFFIXES = (*JSON_LINES, *_TABLES, *CONLL)
_CSV_ERRORS = {"unexpected end of data": "a quote that is never closed"}
_CSV_FIELD = 64 << 20  # bytes; the csv module's own limit of 128 KiB is a long article

_OTHER_MARKS = (
    codecs.BOM_UTF16_LE,
    codecs.BOM_UTF16_BE,
    codecs.BOM_UTF32_BE,
)  # UTF-32-LE begins as UTF-16-LE

Record = tuple[int, dict | BadRow]  # a row's first line, and its JSON Lines form


@contextmanager
def input_errors(path: str) -> Iterator[None]:
    """InputError, and not OSError, where a file can't be read."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: {(error.strerror or str(error)).lower()}") from None


def read_records(path: str, long_rows: list[tuple[int, int]] | None = None) -> Iterator[Record]:
    """The rows of a file, in the format of its name, or of a JointBERT folder. Only a few are held at once.

    A table's rows that take several lines are added to `long_rows`: (how many, the first). Raises InputError
    where the file as a whole can't be read."""
    if Path(path).is_dir():
        return _jointbert(Path(path))
    if not Path(path).is_file():
        raise InputError(
            f"{path}: {'is a pipe or a device, not a file' if Path(path).exists() else _MISSING}"
        )
    suffix = Path(path).suffix.lower()
    if suffix in JSON_LINES:
        return _json_lines(path)
    if suffix in _TABLES:
        return _columns_with_header(path, _TABLES[suffix], [] if long_rows is None else long_rows)
    if suffix in CONLL:
        return _conll(path)
    with open(path, "rb") as file:
        opens_with_brace = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    return _json_lines(path) if opens_with_brace else _conll(path)


def source_files(path: str | Path) -> list[Path]:
    """The file itself, or a JointBERT folder's files that are read; none where there is none.

    Raises InputError for a link out of the folder: whoever made it would choose what is read."""
    path = Path(path)
    if not path.is_dir():
        return [path] if path.is_file() else []
    files = [path / name for name in _JOINTBERT if (path / name).exists() or (path / name).is_symlink()]
    for file in files:
        if not file.resolve().is_relative_to(path.resolve()):
            raise InputError(f"{file}: is a link that leads out of its folder; copy the file into it")
        if not file.is_file():
            raise InputError(f"{file}: is no file")
    return files


def decode(raw: bytes, line: int, path: str | Path) -> str:
    """A line of a file as text, without its end and a byte order mark before the first one.

    Raises InputError for a mark of another encoding."""
    if line == 1:
        _check_mark(raw, path)
    # surrogates mark what is no UTF-8, so that only this row is refused, by the check that all rows pass
    text = raw.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")
    return text.removeprefix("\ufeff") if line == 1 else text


def _check_mark(start: bytes, path: str | Path) -> None:
    if start.startswith(_OTHER_MARKS):
        raise InputError(f"{path}:1: UTF-16 or UTF-32, by its byte order mark; save the file as UTF-8")


def _lines(path: str | Path) -> Iterator[tuple[int, str]]:
    # by \n alone: U+2028 and its like are characters of a text, not the end of a row
    with open(path, "rb") as file:
        for line, raw in enumerate(file, 1):
            yield line, decode(raw, line, path)


def _fields(text: str, separator: str = " ") -> list[str]:
    # str.split() would also part words at the white space that is no ASCII, which may be a word here
    return text.split(separator) if separator == "\t" else [field for field in text.split(" ") if field]


def _json_lines(path: str) -> Iterator[Record]:
    for line, text in _lines(path):
        if not text.strip():
            continue
        try:
            row = loads_row(text)
        except json.JSONDecodeError as error:
            yield line, BadRow(f"not JSON: {error.msg} at column {error.colno}")
        except RepeatedKey as error:
            yield line, BadRow(f"the key {abbreviate(error.key)} stands twice in an object")
        except (ValueError, RecursionError):
            yield line, BadRow("not JSON that can be read: too deep, or a number too long")
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
                    bad = bad or BadRow(
                        "a second label, or one inside a sentence: a blank line ends one", line
                    )
                label, first = comment[2].strip() or None, first or line
            continue
        if "\r" in text:
            bad = bad or BadRow(_RETURN, line)
        fields = _fields(text, "\t" if "\t" in text else " ")
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
    """A word and its tag as a line that is read back as they are. Raises BadRow for a word that can't be."""
    line = word if tag is None else f"{word}\t{tag}"
    if not word.strip() or re.search(r"[\t\r\n]|^\ufeff", word) or (tag is None and " " in word):
        raise BadRow(f"the word {abbreviate(word)} does not fit into a column")
    if word == "-DOCSTART-" or _COMMENT.fullmatch(line):
        raise BadRow(f"the word {abbreviate(word)} would be read as a comment")
    return line


def _columns_with_header(path: str, delimiter: str, long_rows: list[tuple[int, int]]) -> Iterator[Record]:
    csv.field_size_limit(_CSV_FIELD)
    with open(path, "rb") as file:
        _check_mark(file.peek(4), path)
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
    """The names of a table's columns; none of an empty file."""
    try:
        header = next(rows, None)
    except csv.Error as error:
        raise InputError(
            f"{path}:1: not a line of column names: {_CSV_ERRORS.get(str(error), error)}"
        ) from None
    if header is None:
        return []
    problem = "" if "text" in header else f"found {abbreviate(', '.join(header))}"
    if twice := [name for name in ("text", "label") if header.count(name) > 1]:
        problem = f"{twice[0]} stands twice"
    if problem:
        raise InputError(f"{path}:1: the first line names the columns, text and label; {problem}")
    return header


def _jointbert(folder: Path) -> Iterator[Record]:
    names = [path.name for path in source_files(folder)]
    if "seq.in" not in names:
        raise InputError(
            f"{folder}: a folder is read as JointBERT's, with seq.in, seq.out and label; no seq.in in it"
        )
    counts = {name: sum(1 for _ in _lines(folder / name)) for name in names}
    if len(set(counts.values())) > 1:
        raise InputError(f"{folder}: " + ", ".join(f"{name} has {n:,} lines" for name, n in counts.items()))
    columns = ((text for _, text in _lines(folder / name)) for name in names)
    line = 0
    for line, values in enumerate(zip(*columns), 1):
        row = dict(zip(names, values))
        if any("\r" in text for text in values):
            yield line, BadRow(_RETURN)
            continue
        record = {"tokens": _fields(row["seq.in"]), "label": row.get("label", "").strip() or None}
        yield line, {**record, "tags": _fields(row["seq.out"])} if "seq.out" in row else record
    if line != counts["seq.in"]:
        raise InputError(f"{folder}: changed while it was read")
