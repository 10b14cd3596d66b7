"""Corpus files → Examples, all at once or one by one. Every row is used or reported."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from multitask.common.errors import InputError, list_problems
from multitask.data.examples import Example, raw_example, to_example
from multitask.data.formats.files import read_records
from multitask.data.formats.lines import input_errors
from multitask.data.labels import Span, has_prefix
from multitask.data.notices import Notices, abbreviate, truncate
from multitask.data.rows import KEYS, BadRow, validate_row

logger = logging.getLogger(__name__)

_SHOWN_CUTS = 3  # entities per file
_CUT_SHARE = 0.01  # of a file's entities; a larger share is more likely an error of the offsets
T = TypeVar("T")


class MisleadingFirstTags(Exception):
    """The first tags of a file are of another style than most. Read it again, and count its tags first."""


@dataclass
class ReadResult:
    """The content of corpus files. `rows` is always len(examples) + len(skipped)."""

    examples: list[Example] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  # file:line: reason
    notices: list[str] = field(default_factory=list)  # what a person should know about rows that were used
    rows: int = 0
    file_rows: list[int] = field(default_factory=lambda: [0])  # offsets: the examples of each file


def iter_examples(
    paths: Sequence[str],
    result: ReadResult,
    on_bad_row: str,
    hint: str = "",
    count_tags: bool = True,
    raw: bool = False,
) -> Iterator[Example]:
    """Yield the Examples of files or JointBERT folders, in order; add all else to `result`.

    With `raw`, rows of tokens become rows of raw text, as from `raw_example`. With `count_tags` the tags of
    each file are counted first, in an extra pass. Without, raises MisleadingFirstTags if that turns out to be
    needed. At the end, raises InputError if a file is missing or has no rows or, unless `on_bad_row` is
    "skip", if rows can't be used: the message lists up to 20 with file:line and reason, counts the rest, and
    ends with `hint`. The notices, which may explain the reasons, are logged before it."""
    problems = []
    for path in paths:
        try:
            with input_errors(path):
                yield from _examples(path, result, count_tags, raw)
        except InputError as error:
            problems.append(str(error))
        result.file_rows.append(result.rows - len(result.skipped))
    if problems or (result.skipped and on_bad_row != "skip"):
        for notice in result.notices:
            logger.warning(notice)
        hints = [hint] if hint and result.skipped and not problems else []
        raise InputError("\n".join([list_problems(problems + result.skipped), *hints]))


def retry_with_counted_tags(read: Callable[[bool], T]) -> T:
    """read(False) or, if it raises MisleadingFirstTags, read(True). The argument is `count_tags`."""
    try:
        return read(False)
    except MisleadingFirstTags:
        return read(True)


def _examples(path: str, result: ReadResult, count_tags: bool, raw: bool) -> Iterator[Example]:
    style, notices, cut_entities = _TagStyle(path, count_tags), Notices(), _CutEntities(path)
    rows_before, began_inside = result.rows, 0
    for line, record in read_records(path, notices):
        result.rows += 1
        try:
            row = validate_row(record, notices, line)
            style.check(row.get("tags", ()))
        except BadRow as reason:
            result.skipped.append(f"{path}:{reason.line or line}: {reason}")
            continue
        example, count = to_example(row, bool(style.prefixed), path, line)
        began_inside += count
        if raw:
            example = raw_example(example)
        if example.text is not None and example.spans:  # entities of tokens are never cut
            cut_entities.count(example)
        yield example
    if result.rows == rows_before:
        raise InputError(f"{path}: the file has no rows")
    if began_inside:
        result.notices.append(
            f"{path}: {began_inside:,} entities begin with I- (or E-, L-, M-); read as IOB1"
        )
    result.notices += [*cut_entities.notices(), *notices.lines(path, KEYS)]


class _CutEntities:
    """Counts the entities of a file's raw texts, and those that begin or end inside a word."""

    def __init__(self, path: str):
        self.path, self.entities, self.cut = path, 0, 0
        self.first: list[str] = []  # file:line and text of the first ones

    def count(self, example: Example) -> None:
        spans = example.spans or ()
        self.entities += len(spans)
        for span in spans:
            if span.cut is not None:
                self.cut += 1
                if len(self.first) < _SHOWN_CUTS:
                    self.first.append(f"{self.path}:{example.line} {_show_cut(example, span)}")

    def notices(self) -> list[str]:
        if not self.cut:
            return []
        share = self.cut / self.entities
        warning = "warning: are the offsets right? " if share > _CUT_SHARE else ""
        return [
            f"{self.path}: {warning}{self.cut:,} of {self.entities:,} entities ({share:.1%}) begin or end "
            "inside a word or at white space. Training widens them to whole words, scoring counts them as "
            "missed: " + ", ".join(self.first)
        ]


def _show_cut(example: Example, span: Span) -> str:
    """An entity as whole words → the same with | where the annotation cuts: "India" → "Indi|a"."""
    text, offsets, cut = example.text, example.offsets, span.cut
    assert text is not None and offsets is not None and cut is not None
    first, last = offsets[span.start][0], offsets[span.end - 1][1]
    before, after = text[min(first, cut[0]) : cut[0]], text[cut[1] : max(last, cut[1])]
    bars = ["|" if cut[0] != first else "", "|" if cut[1] != last else ""]
    marked = f"{before}{bars[0]}{text[cut[0] : cut[1]]}{bars[1]}{after}"
    return f'"{truncate(text[first:last], 40)}" → "{truncate(marked, 40)}"'


class _TagStyle:
    """Whether the tags of a file have prefixes such as B-: most of them, if a file has both kinds.

    The first tag decides until one of the other kind comes up. Then all tags of the file are counted."""

    def __init__(self, path: str, count_tags: bool):
        self.path, self.accepted, self.counted = path, {"O"}, False
        self.prefixed: bool | None = None
        if count_tags:
            self._count()

    def check(self, tags: Sequence[str]) -> None:
        """Raises BadRow for a tag of the rarer kind, and MisleadingFirstTags if rows were read wrongly."""
        if self.accepted.issuperset(tags):
            return
        if not self.counted:
            new = set(tags) - self.accepted
            kinds = {has_prefix(tag) for tag in new}
            if len(kinds) == 1 and self.prefixed in (None, *kinds):
                self.prefixed = kinds.pop()
                self.accepted |= new
                return
            self._count()
        for tag in tags:
            if tag not in self.accepted:
                usual = "have a prefix such as B- or I-" if self.prefixed else "have no B- or I- prefix"
                raise BadRow(f"tag {abbreviate(tag)}: most tags of this file {usual}")

    def _count(self) -> None:
        counts: Counter[str] = Counter()
        for _, record in read_records(self.path):
            with suppress(BadRow):
                counts.update(validate_row(record, Notices(), 0).get("tags", ()))
        del counts["O"]
        prefixed = sum(n if has_prefix(tag) else -n for tag, n in counts.items()) >= 0
        if self.prefixed not in (None, prefixed):
            raise MisleadingFirstTags(self.path)
        self.prefixed, self.counted = prefixed, True
        self.accepted = {"O", *(tag for tag in counts if has_prefix(tag) == prefixed)}
