"""Layouts of column files: how the lines of one sentence become its words and tags."""

import re
from dataclasses import dataclass
from itertools import dropwhile
from typing import Protocol

from multitask.data.formats.lines import split_at_spaces
from multitask.data.labels import has_prefix
from multitask.data.notices import abbreviate
from multitask.data.rows import BadRow

NO_VALUE = frozenset(("", "_", "-", "*"))  # what column formats write for "nothing here"
LABEL_STUDIO_LINE = re.compile(r"([^ ]+) -X- _ (.+)")
_NOT_A_WORD = re.compile(r"\d+-\d+|\d+\.\d+")  # ids of CoNLL-U: a contraction 1-2, an empty node 1.1
CONLL_U_COLUMNS = 10

Lines = list[tuple[int, str]]  # the lines of a sentence: (line number, text)


class Layout(Protocol):
    """A way to read the sentences of a file."""

    @property
    def notice(self) -> str:
        """What a person should know about the layout; empty if it is a word and its tag."""
        ...

    def read(self, lines: Lines) -> tuple[list[str], list[str] | None]:
        """The lines of a sentence → its words, and their tags if it has tags. Raises BadRow."""
        ...


@dataclass(frozen=True)
class Columns:
    """A word in one column and its tag in another. Columns count from 0.

    Args:
        width, line: the number of columns, and a line that has so many.
        tabs: tabs alone separate the columns; a blank is part of a word or tag.
        counted: column 0 counts the words of a sentence.
        shortest: the least number of columns of a line; None: `width`."""

    notice: str = ""
    word: int = 0
    tag: int = 1
    width: int = 2
    line: int | None = None
    tabs: bool = False
    counted: bool = False
    shortest: int | None = None

    def read(self, lines: Lines) -> tuple[list[str], list[str] | None]:
        """Read a sentence. Lines of one column are words without tags."""
        if self.counted:
            lines = _without_comments(lines)
        word, tag, width, tabs = self.word, self.tag, self.width, self.tabs
        words, tags = [], []
        for line, text in lines:
            fields = split_columns(text)
            if len(fields) != width or (tabs and "\t" not in text):
                self._check_width(line, text, len(fields))
                if len(fields) == 1:
                    words.append(fields[0])
                    continue
            words.append(fields[word])
            tags.append(fields[tag].strip())
        if self.counted:
            _check_numbers([(line, split_columns(text)[0]) for line, text in lines])
        if not tags:
            return words, None
        if len(tags) != len(words):
            alone = [len(split_columns(text)) == 1 for _, text in lines]
            line = lines[alone.index(not alone[0])][0]
            raise BadRow("one column, where other lines of the sentence have a tag", line)
        _check_values(lines, words, tags)
        return words, tags

    def _check_width(self, line: int, text: str, columns: int) -> None:
        """Raises BadRow unless a line of so many columns fits this layout."""
        if columns == 1 and self.word == 0:
            return
        if self.tabs and "\t" not in text:
            raise BadRow(f"no tab between the columns, where line {self.line} has tabs", line)
        if not (self.shortest or self.width) <= columns <= self.width:
            usual = (
                f"where line {self.line} has {self.width}" if self.line else "where a word and its tag are 2"
            )
            hint = "" if "\t" in text else "; separate columns by tabs if a word or tag has a blank"
            raise BadRow(f"{columns} columns, {usual}{hint}", line)


@dataclass(frozen=True)
class ConllU:
    """CoNLL-U: ten columns, the word in the second, and the tag as NER=… in the tenth."""

    notice: str
    tagged: bool

    def read(self, lines: Lines) -> tuple[list[str], list[str] | None]:
        """Read a sentence. Contractions and empty nodes are not words."""
        word_lines, words, tags = [], [], []
        for line, text in _without_comments(lines):
            fields = text.split("\t")
            if len(fields) != CONLL_U_COLUMNS:
                raise BadRow(f"{len(fields)} columns, where CoNLL-U has {CONLL_U_COLUMNS}", line)
            tag = tag_of_misc(fields[-1])
            if _NOT_A_WORD.fullmatch(fields[0]):
                if tag not in (None, "O"):
                    raise BadRow(f"{abbreviate(fields[0])} is not a word; it can't have the tag {tag}", line)
                continue
            if (tag is None) == self.tagged:
                reason = "no NER= in column 10; write NER=O for a word in no entity"
                raise BadRow(
                    reason if self.tagged else "NER= in column 10; the first sentences lack it", line
                )
            word_lines.append((line, fields[0]))
            words.append(fields[1])
            tags.append("O" if tag is None else tag)
        _check_numbers(word_lines)
        _check_values(word_lines, words, tags)
        return words, tags if self.tagged else None


@dataclass(frozen=True)
class LabelStudio:
    """What Label Studio exports as CoNLL: word, -X-, _ and the tag, whose type may have blanks."""

    notice: str = (
        "read as CoNLL of Label Studio: words in column 1, tags from column 4 to the end of the line"
    )

    def read(self, lines: Lines) -> tuple[list[str], list[str] | None]:
        """Read a sentence; each line must have all four parts."""
        words, tags = [], []
        for line, text in lines:
            match = LABEL_STUDIO_LINE.fullmatch(text)
            tag = match[2].strip() if match else ""
            if match is None or not is_tag(tag):
                raise BadRow(
                    "not a word, -X-, _ and a tag such as O or B-PERSON, as the other lines are", line
                )
            words.append(match[1])
            tags.append(tag)
        return words, tags


def split_columns(text: str) -> list[str]:
    """The columns of a line: between tabs or, if it has none, between blanks. A tab at the end is none."""
    if "\t" not in text:
        return split_at_spaces(text)
    fields = text.split("\t")
    return fields[:-1] if len(fields) > 2 and not fields[-1].strip() else fields


def is_tag(value: str) -> bool:
    """Whether a value can't be anything but a tag: O, or a type with a prefix such as B-."""
    return value == "O" or has_prefix(value)


def is_tagged_hash(text: str) -> bool:
    """Whether a line that begins with # is a word with its tag: "#a=b O" or, with tabs, "# a = b" and "O"."""
    first, *others = split_columns(text)
    if "\t" in text:
        return any(is_tag(value.strip()) for value in others)
    return first != "#" and is_tag("".join(others[-1:]))


def is_comment(text: str) -> bool:
    """Whether a line is a comment where every word has a number before it."""
    return text.startswith("#") and not is_tagged_hash(text)


def expected_numbers(numbers: list[str]) -> list[str]:
    """What the numbers of a sentence's words must be: 1, 2, 3, … or, if the first is 0, 0, 1, 2, …"""
    first = 0 if numbers[:1] == ["0"] else 1
    return [str(number) for number in range(first, first + len(numbers))]


def word_numbers(column: list[str]) -> list[str]:
    """A first column without the ids of CoNLL-U that belong to no word."""
    return [value for value in column if not _NOT_A_WORD.fullmatch(value)]


def tag_of_misc(misc: str) -> str | None:
    """The tag in the column MISC of CoNLL-U, such as NER=B-PER|SpaceAfter=No. None if there is none."""
    values = [part[4:].strip() for part in misc.split("|") if part.startswith("NER=")]
    return values[0] if len(values) == 1 else ("" if values else None)


def _without_comments(lines: Lines) -> Lines:
    """The lines of a sentence after its comments, where every word has a number before it."""
    return list(dropwhile(lambda numbered: is_comment(numbered[1]), lines))


def _check_numbers(numbers: Lines) -> None:
    """Raises BadRow if the numbers of a sentence, each with its line, do not count its words."""
    for expected, (line, number) in zip(expected_numbers([number for _, number in numbers]), numbers):
        if number != expected:
            raise BadRow(f"column 1 is {abbreviate(number)}, but this is word {expected}", line)


def _check_values(lines: Lines, words: list[str], tags: list[str]) -> None:
    """Raises BadRow for an empty word, and for what is no tag."""
    if "" in words:
        raise BadRow("the column of the word is empty", lines[words.index("")][0])
    if not NO_VALUE.isdisjoint(tags):
        wrong = next(i for i, tag in enumerate(tags) if tag in NO_VALUE)
        what = f"the tag is {tags[wrong]}" if tags[wrong] else "the tag is empty"
        raise BadRow(f"{what}; write O for a word in no entity", lines[wrong][0])
