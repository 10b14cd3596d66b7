"""File formats → rows in their JSON Lines form: JSON Lines, CoNLL columns, CSV/TSV and JointBERT folders."""

import csv
import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from multitask.errors import InputError
from multitask.rows import BadRow

_COMMENT = re.compile(r"#\s*(?:([\w.:-]+)\s*=\s*(.*)|new(?:doc|par)\b.*)")
_JSON_LINES = (".jsonl", ".json", ".ndjson")
_TABLES = {".csv": ",", ".tsv": "\t"}
_CONLL = (".conll", ".bio", ".iob", ".iob2")
_JOINTBERT = ("seq.in", "seq.out", "label")
_DECODER = json.JSONDecoder()
SUFFIXES = (*_JSON_LINES, *_TABLES, *_CONLL)
_CSV_FIELD = 64 << 20  # bytes; the csv module's own limit of 128 KiB is a long article

Record = tuple[int, dict | BadRow]  # a row's first line, and its JSON Lines form


def records(path: str) -> Iterator[Record]:
    """The rows of a file, in the format of its name, or of a JointBERT folder. Only a few are held at once.

    Raises InputError where the file as a whole can't be read."""
    if Path(path).is_dir():
        return _jointbert(Path(path))
    suffix = Path(path).suffix.lower()
    if suffix in _JSON_LINES:
        return _json_lines(path)
    if suffix in _TABLES:
        return _columns_with_header(path, _TABLES[suffix])
    if suffix in _CONLL:
        return _conll(path)
    with open(path, "rb") as file:
        opens_with_brace = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    return _json_lines(path) if opens_with_brace else _conll(path)


def files_of(path: str | Path) -> list[Path]:
    """The file itself, or a JointBERT folder's files that are read; none where there is none."""
    path = Path(path)
    files = [path / name for name in _JOINTBERT] if path.is_dir() else [path]
    return [file for file in files if file.is_file()]


def decode(raw: bytes, line: int) -> str:
    """A line of a file as text, without its end and a byte order mark before the first one."""
    # surrogates mark what is no UTF-8, so that only this row is refused, by the check that all rows pass
    text = raw.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")
    return text.removeprefix("\ufeff") if line == 1 else text


def _lines(path: str | Path) -> Iterator[tuple[int, str]]:
    # by \n alone: U+2028 and its like are characters of a text, not the end of a row
    with open(path, "rb") as file:
        for line, raw in enumerate(file, 1):
            yield line, decode(raw, line)


def _fields(text: str, separator: str = " ") -> list[str]:
    # str.split() would also part words at the white space that is no ASCII, which may be a word here
    return text.split(separator) if separator == "\t" else [field for field in text.split(" ") if field]


def _json_lines(path: str) -> Iterator[Record]:
    for line, text in _lines(path):
        if not text.strip():
            continue
        try:
            row = _json(text)
        except json.JSONDecodeError as error:
            yield line, BadRow(f"not JSON: {error.msg} at column {error.colno}")
        except (ValueError, RecursionError):
            yield line, BadRow("not JSON that can be read: too deep, or a number too long")
        else:
            yield line, row if isinstance(row, dict) else BadRow("a row is a JSON object, {...}")


def _json(text: str):
    """json.loads, in two thirds of the time where the text holds nothing around the value."""
    try:
        value, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return json.loads(text)  # for its message
    return value if end == len(text) else json.loads(text)


def _conll(path: str) -> Iterator[Record]:
    first, words, tags, label, bad = 0, [], [], None, None
    for line, text in chain(_lines(path), [(0, "")]):
        comment = _COMMENT.fullmatch(text)
        if comment:
            if comment[1] == "label" and not words:
                label, first = comment[2].strip() or None, first or line
            continue
        fields = _fields(text, "\t" if "\t" in text else " ")
        if text.strip() and fields[0] != "-DOCSTART-":
            first = first or line
            words.append(fields[0])
            tags.append(fields[-1] if len(fields) > 1 else None)
            if (tags[-1] is None) != (tags[0] is None):
                bad = bad or BadRow("one column, where other lines of the sentence have a tag", line)
            continue
        if words or label is not None:
            tagged = {"tags": tags} if words and tags[0] is not None else {}
            yield first, bad or {"tokens": words, "label": label, **tagged}
        first, words, tags, label, bad = 0, [], [], None, None


def _columns_with_header(path: str, delimiter: str) -> Iterator[Record]:
    csv.field_size_limit(_CSV_FIELD)
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        # tab-separated files have no quoting: a quote there is a character of the text
        quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
        rows = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)
        header = next(rows, [])
        if header and "text" not in header:
            raise InputError(
                f"{path}:1: the first line names the columns, text and label; found {', '.join(header)}"
            )
        while True:
            line = rows.line_num + 1
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, BadRow(f"not a row of the table: {error}")
                continue
            if not row:
                continue
            if len(row) != len(header):
                yield line, BadRow(f"{len(row)} columns, where the first line has {len(header)}")
                continue
            record = dict(zip(header, row))
            yield line, {**record, "label": record.get("label") or None}


def _jointbert(folder: Path) -> Iterator[Record]:
    if not (folder / "seq.in").is_file():
        raise InputError(
            f"{folder}: a folder is read as JointBERT's, with seq.in, seq.out and label; no seq.in in it"
        )
    names = [path.name for path in files_of(folder)]
    counts = {name: sum(1 for _ in _lines(folder / name)) for name in names}
    if len(set(counts.values())) > 1:
        raise InputError(f"{folder}: " + ", ".join(f"{name} has {n:,} lines" for name, n in counts.items()))
    columns = ((text for _, text in _lines(folder / name)) for name in names)
    for line, values in enumerate(zip(*columns), 1):
        row = dict(zip(names, values))
        record = {"tokens": _fields(row["seq.in"]), "label": row.get("label", "").strip() or None}
        yield line, {**record, "tags": _fields(row["seq.out"])} if "seq.out" in row else record
