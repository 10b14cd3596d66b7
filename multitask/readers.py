"""Files → Examples. JSON Lines, CoNLL columns, CSV/TSV and JointBERT folders; every row is used or
reported."""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from multitask.errors import InputError, report
from multitask.labels import has_prefix
from multitask.rows import KEYS, BadRow, Example, checked, example_of, valid_text

_COMMENT = re.compile(r"#\s*(?:([\w.:-]+)\s*=\s*(.*)|new(?:doc|par)\b.*)")
_JSON_LINES = (".jsonl", ".json", ".ndjson")
_TABLES = {".csv": ",", ".tsv": "\t"}
_CONLL = (".conll", ".bio", ".iob", ".iob2")
_CSV_FIELD = 64 << 20  # bytes; the csv module's own limit of 128 KiB is a long article


@dataclass
class Reading:
    """What files held: `rows` == len(examples) + len(skipped), always."""

    examples: list[Example] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  # file:line: reason
    notices: list[str] = field(default_factory=list)  # what was read in a way that a person should know of
    rows: int = 0


Record = tuple[int, dict | BadRow]  # a row's first line, and its JSON Lines form


def read_corpus(paths: Iterable[str], on_bad_row: str = "stop", hint: str = "") -> Reading:
    """All rows of several files or JointBERT folders, in order.

    Raises InputError for a missing or empty file and, unless `on_bad_row` is "skip", for rows that can't be
    used: up to 20 of them, each with file:line and the reason, then a count, and last `hint`."""
    total, missing = Reading(), []
    for path in paths:
        try:
            read = read_file(path)
        except InputError as error:
            missing.append(str(error))
            continue
        total.examples += read.examples
        total.skipped += read.skipped
        total.notices += read.notices
        total.rows += read.rows
    if missing or (total.skipped and on_bad_row != "skip"):
        hints = [hint] if hint and total.skipped and not missing else []
        raise InputError("\n".join([report(missing + total.skipped), *hints]))
    return total


def read_file(path: str) -> Reading:
    """One file, in the format of its name, or a JointBERT folder. Raises InputError if there are no rows."""
    if not Path(path).exists():
        raise InputError(f"{path}: no such file")
    unknown: Counter[str] = Counter()
    records = list(_records(path))
    rows = [(line, checked(record, unknown)) for line, record in records]
    prefixed, odd = _tag_style(row for _, row in rows if isinstance(row, dict))
    read = Reading(rows=len(rows))
    began_inside = 0
    for line, row in rows:
        if isinstance(row, dict) and (tag := next((t for t in row.get("tags") or () if t in odd), None)):
            most = "have a prefix such as B- or I-" if prefixed else "have no B- or I- prefix"
            row = BadRow(f"tag {tag!r}: most tags of this file {most}")
        if isinstance(row, BadRow):
            read.skipped.append(f"{path}:{row.line or line}: {row}")
            continue
        example, inside = example_of(row, prefixed)
        example.path, example.line = path, line
        read.examples.append(example)
        began_inside += inside
    if not rows:
        raise InputError(f"{path}: the file has no rows")
    if began_inside:
        read.notices.append(f"{path}: {began_inside:,} entities begin with I- (or E-, L-, M-); read as IOB1")
    for key, count in unknown.items():
        near = get_close_matches(key, KEYS, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        read.notices.append(f"{path}: {key!r} in {count:,} rows is not read{meant}")
    return read


def is_corpus(path: str) -> bool:
    """Whether a file is read as rows of a corpus, by its name, and not as plain text."""
    return Path(path).is_dir() or Path(path).suffix.lower() in (*_JSON_LINES, *_TABLES, *_CONLL)


def read_texts(path: str) -> Iterator[tuple[int, str]]:
    """(line, text) of a text file, a text a line; an empty line is an empty text. "-" is standard input.

    Raises InputError for a file that is not there, and at a line that is not UTF-8."""
    if path != "-" and not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    return _texts(path)


def _texts(path: str) -> Iterator[tuple[int, str]]:
    with open(0, "rb", closefd=False) if path == "-" else open(path, "rb") as source:
        for line, raw in enumerate(source, 1):
            text = _decode(raw, line)
            if not valid_text(text):
                raise InputError(f"{path}:{line}: not UTF-8")
            yield line, text


def _records(path: str) -> Iterator[Record]:
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


def _decode(raw: bytes, line: int) -> str:
    # surrogates mark what is no UTF-8, so that only this row is refused, by the check that all rows pass
    text = raw.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")
    return text.removeprefix("\ufeff") if line == 1 else text


def _lines(path: str | Path) -> Iterator[tuple[int, str]]:
    # by \n alone: U+2028 and its like are characters of a text, not the end of a row
    with open(path, "rb") as file:
        for line, raw in enumerate(file, 1):
            yield line, _decode(raw, line)


def _fields(text: str, separator: str = " ") -> list[str]:
    # str.split() would also part words at the white space that is no ASCII, which may be a word here
    return text.split(separator) if separator == "\t" else [field for field in text.split(" ") if field]


def _json_lines(path: str) -> Iterator[Record]:
    for line, text in _lines(path):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            yield line, BadRow(f"not JSON: {error.msg} at column {error.colno}")
        except (ValueError, RecursionError):
            yield line, BadRow("not JSON that can be read: too deep, or a number too long")
        else:
            yield line, row if isinstance(row, dict) else BadRow("a row is a JSON object, {...}")


def _conll(path: str) -> Iterator[Record]:
    first, words, tags, label, bad = 0, [], [], None, None
    for line, text in [*_lines(path), (0, "")]:
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
    names = [name for name in ("seq.in", "seq.out", "label") if (folder / name).is_file()]
    columns = {name: [text for _, text in _lines(folder / name)] for name in names}
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        raise InputError(f"{folder}: " + ", ".join(f"{name} has {n:,} lines" for name, n in counts.items()))
    for line, values in enumerate(zip(*columns.values()), 1):
        row = dict(zip(names, values))
        record = {"tokens": _fields(row["seq.in"]), "label": row.get("label", "").strip() or None}
        yield line, {**record, "tags": _fields(row["seq.out"])} if "seq.out" in row else record


def _tag_style(rows: Iterable[dict]) -> tuple[bool, set[str]]:
    """Whether a file's tags carry prefixes, and the tags that are otherwise than most."""
    counts = Counter(tag for row in rows for tag in row.get("tags") or () if tag != "O")
    with_prefix = {tag for tag in counts if has_prefix(tag)}
    without = counts.keys() - with_prefix
    prefixed = sum(counts[tag] for tag in with_prefix) >= sum(counts[tag] for tag in without)
    return prefixed, without if prefixed else with_prefix
