"""A row → its Example: the words, and the annotation in words."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, chain
from typing import Any

import numpy as np

from multitask.data.detokenizer import detokenize
from multitask.data.labels import Span, tags_to_spans
from multitask.data.rows import PROBABILITY_KEYS, BadRow, validate_words
from multitask.data.words import Offsets, TextWords, find_words, split_words

_SHORT_SENTENCE = 32  # words; short sentences often have the same tags as an earlier one
_cached_tags_to_spans = lru_cache(1 << 13)(tags_to_spans)


@dataclass(slots=True)
class Example:
    """The words of a row and its annotation. None means "not annotated", an empty list "no entity"."""

    words: list[str]
    spans: list[Span] | None = None  # in words
    label: str | None = None
    text: str | None = None  # the raw text, if the row has one
    offsets: Offsets | None = None  # of the words, in characters of the text
    path: str = ""
    line: int = 0
    probabilities: dict[str, Any] | None = None  # the values of PROBABILITY_KEYS that the row has, unchecked

    def characters(self, span: Span) -> tuple[int, int]:
        """Offsets [start, end) of an entity as it is annotated. The row needs a text."""
        assert self.offsets is not None
        return span.cut or (self.offsets[span.start][0], self.offsets[span.end - 1][1])

    def spaces(self, first: bool) -> list[bool]:
        """Whether white space stands before each word, as it is assumed where there is no text; before the
        first word also if `first`, or if the text begins with it."""
        if self.offsets is None:
            return [first, *(True for _ in self.words[1:])] if self.words else []
        ends = (-1 if first else 0, *(end for _, end in self.offsets))
        return [start > end for (start, _), end in zip(self.offsets, ends)]

    @property
    def entities(self) -> list[tuple[int, int, str]] | None:
        """The entities as (start, end, type) in characters; None if they are not annotated."""
        if self.spans is None:
            return None
        return [(*self.characters(span), span.label) for span in self.spans]


def example_from_text(text: str) -> Example:
    """A raw text → its Example without annotation."""
    offsets = split_words(text)
    return Example([text[start:end] for start, end in offsets], text=text, offsets=offsets)


def example_from_words(words: list[str]) -> Example:
    """Words → their Example without annotation, with a text: the words, joined by spaces."""
    ends = accumulate(len(word) + 1 for word in words)  # each with the space after the word
    offsets = [(end - 1 - len(word), end - 1) for word, end in zip(words, ends)]
    return Example(words, text=" ".join(words), offsets=offsets)


def words_of_examples(examples: Sequence[Example]) -> TextWords:
    """The words of examples that have texts."""
    words = [word for example in examples for word in example.words]
    rows = np.cumsum([0, *(len(example.words) for example in examples)])
    offsets = chain.from_iterable(span for example in examples for span in example.offsets or ())
    starts, ends = np.fromiter(offsets, np.int64, 2 * len(words)).reshape(-1, 2).T
    return TextWords(words, rows, starts, ends)


def unannotated_example(record: dict | BadRow, max_characters: float = math.inf) -> Example:
    """A row to predict → its Example; its annotation is not looked at.

    Raises BadRow, also for a row of more characters."""
    if isinstance(record, BadRow):
        raise record
    text = record.get("text")
    if isinstance(text, str):
        _check_length(text, max_characters)
    validate_words(record)
    if text is None:
        _check_length(" ".join(record["tokens"]), max_characters)
    return example_from_words(record["tokens"]) if text is None else example_from_text(text)


def _check_length(text: str, max_characters: float) -> None:
    if len(text) > max_characters:
        raise BadRow(f"{len(text):,} characters; at most {max_characters:,} are read")


def to_example(row: dict, prefixed: bool, path: str, line: int) -> tuple[Example, int]:
    """A row as from `validate_row` → its Example, and how many of its entities begin with I-.

    `prefixed` says whether tags have prefixes such as B-."""
    label, text = row.get("label"), row.get("text")
    probabilities = {key: row[key] for key in PROBABILITY_KEYS if key in row} or None
    if "tokens" not in row:
        example = example_from_spans(row["text"], row.get("entities"))
        example.label, example.path, example.line = label, path, line
        example.probabilities = probabilities
        return example, 0
    words, tags = row["tokens"], row.get("tags")
    offsets = None if text is None else find_words(text, words)
    if tags is None:
        return Example(words, None, label, text, offsets, path, line, probabilities), 0
    convert = _cached_tags_to_spans if len(tags) <= _SHORT_SENTENCE else tags_to_spans
    tagged, began_inside = convert(tuple(tags), prefixed)
    return Example(words, list(tagged), label, text, offsets, path, line, probabilities), began_inside


def example_from_spans(text: str, entities: list[tuple[int, int, str]] | None) -> Example:
    """A raw text and its entities, as sorted character spans that don't overlap → an Example.

    An entity that begins or ends inside a word is widened to whole words and marked as inexact: words look at
    the text alone, and prediction can never give its ends."""
    example = example_from_text(text)
    if entities is None or example.offsets is None:
        return example
    starts, ends = [start for start, _ in example.offsets], [end for _, end in example.offsets]
    example.spans = []
    for start, end, label in entities:
        first, last = bisect_right(ends, start), bisect_left(starts, end)
        exact = starts[first] == start and ends[last - 1] == end
        example.spans.append(Span(first, last, label) if exact else Span(first, last, label, (start, end)))
    return example


def raw_example(example: Example) -> Example:
    """An Example as prediction would see it: a row of tokens becomes a raw text with character spans.

    The text is the row's own or, without one, the tokens as `detokenize` joins them."""
    if not example.text:
        text, offsets = detokenize(example.words)
        example = replace(example, text=text, offsets=offsets)
    assert example.text is not None
    raw = example_from_spans(example.text, example.entities)
    raw.label, raw.path, raw.line = example.label, example.path, example.line
    return raw
