"""A text, cut at its entities and words for the template that marks them."""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from multitask.common.shell import printable
from multitask.inference.predictions import Entity, Word


class Piece(NamedTuple):
    """A word, or the text between two words."""

    text: str
    word: Word | None


class Segment(NamedTuple):
    """An entity, or the text between two entities."""

    entity: Entity | None
    pieces: list[Piece]


def segments(text: str, entities: Sequence[Entity], words: Sequence[Word] = ()) -> Iterator[Segment]:
    """The whole text in order, as entities and what is between them; joined, the pieces are the text."""
    starts = [word.start for word in words]

    def pieces(begin: int, end: int) -> Iterator[Piece]:
        for word in words[bisect_left(starts, begin) : bisect_left(starts, end)]:
            yield Piece(text[begin : word.start], None)
            yield Piece(text[word.start : word.end], word)
            begin = word.end
        yield Piece(text[begin:end], None)

    end = 0
    for entity in entities:
        yield Segment(None, list(pieces(end, entity.start)))
        yield Segment(entity, list(pieces(entity.start, entity.end)))
        end = entity.end
    yield Segment(None, list(pieces(end, len(text))))


def keep_lines(text: str) -> Markup:
    """The text escaped and printable, except for line breaks and tabs, which the page shows as they are."""
    return escape(re.sub(r"[^\n\t]+", lambda match: printable(match[0]), text))
