"""Splits a text at its entities and words, for the template that marks them."""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from markupsafe import Markup, escape

from multitask.common.shell import printable
from multitask.inference.predictions import Entity, Word

Piece = tuple[str, Word | None]  # None: the text between two words
Segment = tuple[Entity | None, list[Piece]]  # None: the text between two entities


def segments(text: str, entities: Sequence[Entity], words: Sequence[Word] = ()) -> Iterator[Segment]:
    """Entities and the text between them, in order; joined, the pieces are the whole text."""
    starts = [word.start for word in words]

    def pieces(begin: int, end: int) -> Iterator[Piece]:
        for word in words[bisect_left(starts, begin) : bisect_left(starts, end)]:
            yield text[begin : word.start], None
            yield text[word.start : word.end], word
            begin = word.end
        yield text[begin:end], None

    end = 0
    for entity in entities:
        yield None, list(pieces(end, entity.start))
        yield entity, list(pieces(entity.start, entity.end))
        end = entity.end
    yield None, list(pieces(end, len(text)))


def keep_lines(text: str) -> Markup:
    """Escape the text for HTML, and control characters as \\x1b; keep line breaks and tabs."""
    return escape(re.sub(r"[^\n\t]+", lambda match: printable(match[0]), text))
