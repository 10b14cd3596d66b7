"""Files of columns, as CoNLL's: a word and its tag on each line, and a blank line after each sentence."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

from multitask.data.formats.column_layouts import Lines, is_tagged_hash, split_columns
from multitask.data.formats.layout_search import find_layout
from multitask.data.formats.lines import CARRIAGE_RETURN, Record, read_lines
from multitask.data.notices import Notices, abbreviate
from multitask.data.rows import BadRow
from multitask.data.words import find_words

_LABEL = re.compile(r"#\s*label\s*=\s*(.*)")
_TEXT = re.compile(r"#\s*text\s*=\s*(.*)")
_SOURCE = re.compile(r"#\t\S+ \[[\d-]+\]")  # GermEval: the address of a text, and its date
_COMMENT = re.compile(
    rf"{_LABEL.pattern}|{_SOURCE.pattern}|#\s*(?:[\w.:-]+\s*=.*|new(?:doc|par)\b.*|id\s\S+\s+domain=\S*)"
)
_FIRST_SENTENCES = 200  # that tell the layout of a file


@dataclass(slots=True)
class _Sentence:
    """The lines of a sentence, and what comments above it say."""

    first: int = 0
    lines: Lines = field(default_factory=list)
    label: str | None = None
    text: str | None = None
    has_source: bool = False
    bad: BadRow | None = None


def read_columns(path: str, notices: Notices) -> Iterator[Record]:
    """Yield the sentences of a file of columns. Its first sentences tell which columns are read.

    Notes the layout unless it is a word and its tag. Raises InputError if none fits."""
    sentences = _sentences(path)
    first = list(islice(sentences, _FIRST_SENTENCES))
    sample = [sentence.lines for sentence in first if sentence.bad is None]
    layout = find_layout(path, sample, any(sentence.has_source for sentence in first))
    if layout.notice:
        notices.add(layout.notice, first[0].first)
    for sentence in chain(first, sentences):
        try:
            if sentence.bad:
                raise sentence.bad
            words, tags = layout.read(sentence.lines)
        except BadRow as reason:
            yield sentence.first, reason
            continue
        if words or sentence.label is not None:
            row = {"tokens": words, "label": sentence.label} | ({} if tags is None else {"tags": tags})
            # the text of CoNLL-U has contractions as one word, and the columns as two
            has_words = sentence.text and find_words(sentence.text, words) is not None
            yield sentence.first, row | ({"text": sentence.text} if has_words else {})


def _sentences(path: str) -> Iterator[_Sentence]:
    """Yield the lines between blank lines, without comments."""
    sentence = _Sentence()
    for numbered in chain(read_lines(path), [(0, "")]):
        line, text = numbered
        if text.startswith("#") and _COMMENT.fullmatch(text) and not is_tagged_hash(text):
            sentence.has_source |= _SOURCE.fullmatch(text) is not None
            if raw_text := _TEXT.fullmatch(text):
                sentence.text = raw_text[1]
            if label := _LABEL.fullmatch(text):
                if sentence.lines or sentence.label is not None:
                    reason = "a second label, or one inside a sentence; end sentences with a blank line"
                    sentence.bad = sentence.bad or BadRow(reason, line)
                sentence.label, sentence.first = label[1].strip() or None, sentence.first or line
            continue
        if "\r" in text:
            sentence.bad = sentence.bad or BadRow(CARRIAGE_RETURN, line)
        if text.strip() and not ("-DOCSTART-" in text and split_columns(text)[0] == "-DOCSTART-"):
            sentence.lines.append(numbered)
            continue
        if sentence.lines or sentence.label is not None or sentence.bad:
            sentence.first = sentence.first or (sentence.lines[0][0] if sentence.lines else line)
            yield sentence
            sentence = _Sentence()


def conll_line(word: str, tag: str | None) -> str:
    """A word and its tag as a line of a CoNLL file. Raises BadRow if they could not be read back."""
    line = word if tag is None else f"{word}\t{tag}"
    if not word.strip() or re.search(r"[\t\r\n]|^\ufeff", word) or (tag is None and " " in word):
        raise BadRow(f"the word {abbreviate(word)} does not fit into a column")
    if word == "-DOCSTART-" or _COMMENT.fullmatch(line):
        raise BadRow(f"the word {abbreviate(word)} would be read as a comment")
    return line
