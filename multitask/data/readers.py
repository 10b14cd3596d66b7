"""Files → Examples, all at once or one by one; every row is used or reported."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TypeVar

from multitask.common.errors import InputError, list_problems
from multitask.common.spelling import closest_name
from multitask.data.formats import SUFFIXES, decode, input_errors, read_records
from multitask.data.labels import has_prefix
from multitask.data.rows import KEYS, BadRow, Example, abbreviate, is_valid_utf8, to_example, validate_row

T = TypeVar("T")
_KEYS_NAMED = 20  # that are not read, before the rest is counted


class OtherTags(Exception):
    """A file's first tags are written in another way than most of them: its first rows can't be used."""


@dataclass
class ReadResult:
    """What files held: `rows` == len(examples) + len(skipped), always."""

    examples: list[Example] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  # file:line: reason
    notices: list[str] = field(default_factory=list)  # what was read in a way that a person should know of
    rows: int = 0
    file_rows: list[int] = field(default_factory=lambda: [0])  # offsets of each file's examples


def read_corpus(paths: Sequence[str], on_bad_row: str = "stop", hint: str = "") -> ReadResult:
    """All rows of several files or JointBERT folders, in order.

    Raises InputError for a missing or empty file and, unless `on_bad_row` is "skip", for rows that can't be
    used: up to 20 of them, each with file:line and the reason, then a count, and last `hint`."""

    def read(twice: bool) -> ReadResult:
        reading = ReadResult()
        reading.examples = list(iter_examples(paths, reading, on_bad_row, hint, twice))
        return reading

    return retry_with_counted_tags(read)


def read_file(path: str) -> ReadResult:
    """One file, in the format of its name, or a JointBERT folder. Raises InputError if there are no rows."""
    return read_corpus([path], "skip")


def iter_examples(
    paths: Sequence[str], into: ReadResult, on_bad_row: str = "stop", hint: str = "", twice: bool = True
) -> Iterator[Example]:
    """The Examples of `read_corpus`, one by one; all else goes `into` a Reading. Its errors come at the end.

    Unless every file is read `twice`, raises OtherTags where a file's first tags misled: begin again."""
    missing = []
    for path in paths:
        try:
            with input_errors(path):
                yield from _examples(path, into, twice)
        except InputError as error:
            missing.append(str(error))
        into.file_rows.append(into.rows - len(into.skipped))
    if missing or (into.skipped and on_bad_row != "skip"):
        hints = [hint] if hint and into.skipped and not missing else []
        raise InputError("\n".join([list_problems(missing + into.skipped), *hints]))


def retry_with_counted_tags(read: Callable[[bool], T]) -> T:
    """What `read` gives for `twice=False`, or where that raises OtherTags, for True."""
    try:
        return read(False)
    except OtherTags:
        return read(True)


def is_corpus(path: str) -> bool:
    """Whether a file is read as rows of a corpus, by its name, and not as plain text."""
    return Path(path).is_dir() or Path(path).suffix.lower() in SUFFIXES


def read_texts(path: str) -> Iterator[tuple[int, str]]:
    """(line, text) of a text file, as `iter_text_lines`. Raises InputError for a line that is not UTF-8."""
    return _valid(path, iter_text_lines(path))


def iter_text_lines(path: str) -> Iterator[tuple[int, str]]:
    """(line, text) of a text file, a text a line; an empty line is an empty text. "-" is standard input.

    Bytes that are no UTF-8 become lone surrogates. Raises InputError for a file that is not there, or whose
    lines end otherwise than in \\n."""
    with input_errors(path):
        if path != "-" and not Path(path).is_file():
            found = Path(path).exists()
            raise InputError(
                f"{path}: {'no file of texts; - is standard input' if found else 'no such file'}"
            )
    return _lines(path)


def _valid(path: str, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    for line, text in lines:
        if not is_valid_utf8(text):
            raise InputError(f"{path}:{line}: not UTF-8")
        yield line, text


def _lines(path: str) -> Iterator[tuple[int, str]]:
    with input_errors(path), open(0, "rb", closefd=False) if path == "-" else open(path, "rb") as source:
        for line, raw in enumerate(source, 1):
            text = decode(raw, line, path)
            if line == 1 and "\r" in text and not raw.endswith(b"\n"):
                raise InputError(
                    f"{path}:1: its lines end in \\r alone; save the file with \\n at their ends"
                )
            yield line, text


def _examples(path: str, into: ReadResult, twice: bool) -> Iterator[Example]:
    style = _TagStyle(path, twice)
    unknown: Counter[str] = Counter()
    long_rows: list[tuple[int, int]] = []
    before, began_inside = into.rows, 0
    for line, record in read_records(path, long_rows):
        row = validate_row(record, unknown)
        into.rows += 1
        if isinstance(row, dict) and (tag := style.odd_one(row.get("tags", ()))):
            most = "have a prefix such as B- or I-" if style.prefixed else "have no B- or I- prefix"
            row = BadRow(f"tag {abbreviate(tag)}: most tags of this file {most}")
        if isinstance(row, BadRow):
            into.skipped.append(f"{path}:{row.line or line}: {row}")
            continue
        example, inside = to_example(row, bool(style.prefixed), path, line)
        began_inside += inside
        yield example
    if into.rows == before:
        raise InputError(f"{path}: the file has no rows")
    into.notices += _notices(path, began_inside, unknown, long_rows)


def _notices(
    path: str, began_inside: int, unknown: Counter[str], long_rows: list[tuple[int, int]]
) -> list[str]:
    found = []
    if long_rows:
        lines, first = max(long_rows, key=lambda row: row[0])
        found.append(
            f"{path}: {len(long_rows):,} rows take several lines in quotes; the longest takes {lines:,}, "
            f"from line {first:,} on (so does a quote that is not closed in its row)"
        )
    if began_inside:
        found.append(f"{path}: {began_inside:,} entities begin with I- (or E-, L-, M-); read as IOB1")
    for key, count in unknown.most_common(_KEYS_NAMED):
        # dots mean nothing in a row's key, and one letter is too little to guess from
        near = closest_name(key[:40].replace(".", "_"), KEYS, 0.65) if len(key) > 1 else None
        meant = f"; did you mean {near}?" if near else ""
        found.append(f"{path}: {abbreviate(key)} in {count:,} rows is not read{meant}")
    if (more := len(unknown) - _KEYS_NAMED) > 0:
        found.append(f"{path}: {more:,} more keys are not read")
    return found


class _TagStyle:
    """Whether a file's tags carry prefixes. Its first tag shows it; if one of the other kind turns up,
    all tags of the file are counted."""

    def __init__(self, path: str, whole: bool):
        self.path, self.usual, self.settled = path, {"O"}, False
        self.prefixed: bool | None = None
        if whole:
            self._count_all()

    def odd_one(self, tags: Sequence[str]) -> str | None:
        """The first tag of a good row that is otherwise than most of the file. Raises OtherTags."""
        if self.usual.issuperset(tags):
            return None
        if not self.settled:
            new = set(tags) - self.usual
            kinds = {has_prefix(tag) for tag in new}
            if len(kinds) == 1 and self.prefixed in (None, *kinds):
                self.prefixed = kinds.pop()
                self.usual |= new
                return None
            self._count_all()
        return next((tag for tag in tags if tag not in self.usual), None)

    def _count_all(self) -> None:
        rows = (validate_row(record, Counter()) for _, record in read_records(self.path))
        tags = (row.get("tags", ()) for row in rows if isinstance(row, dict))
        counts = Counter(chain.from_iterable(tags))
        del counts["O"]
        with_prefix = {tag for tag in counts if has_prefix(tag)}
        without = counts.keys() - with_prefix
        prefixed = sum(counts[tag] for tag in with_prefix) >= sum(counts[tag] for tag in without)
        if self.prefixed not in (None, prefixed):
            raise OtherTags(self.path)
        self.prefixed, self.settled = prefixed, True
        self.usual = {"O", *(with_prefix if prefixed else without)}
