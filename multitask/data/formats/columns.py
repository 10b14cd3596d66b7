"""Files of columns, as CoNLL's: a word and its tag on each line, and a blank line after each sentence."""

import re
from collections.abc import Iterator
from itertools import chain

from multitask.data.formats.lines import CARRIAGE_RETURN, Record, read_lines, split_at_spaces
from multitask.data.notices import Notices, abbreviate
from multitask.data.rows import BadRow

_COMMENT = re.compile(r"#\s*(?:([\w.:-]+)\s*=\s*(.*)|new(?:doc|par)\b.*)")


def read_columns(path: str, notices: Notices) -> Iterator[Record]:
    """Yield the sentences of a file of columns."""
    first, label, bad = 0, None, None
    words: list[str] = []
    tags: list[str | None] = []
    for line, text in chain(read_lines(path), [(0, "")]):
        comment = _COMMENT.fullmatch(text)
        if comment:
            if comment[1] == "label":
                if words or label is not None:
                    reason = "a second label, or one inside a sentence; end sentences with a blank line"
                    bad = bad or BadRow(reason, line)
                label, first = comment[2].strip() or None, first or line
            continue
        if "\r" in text:
            bad = bad or BadRow(CARRIAGE_RETURN, line)
        fields = text.split("\t") if "\t" in text else split_at_spaces(text)
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
