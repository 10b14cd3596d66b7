"""A text as HTML with its entities marked and each word's tag on hover; nothing of the text is lost."""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from multitask.common.html import plain, text
from multitask.inference.predictions import Entity, Word

_WHITE_SPACE = re.compile(r"([\n\t])")


def highlighted(
    whole: str,
    entities: Sequence[Entity],
    looks: Mapping[str, str],
    words: Sequence[Word] = (),
    alone: Collection[Entity] = (),
) -> str:
    """The text, exactly. `looks` are the CSS classes of each type; entities in `alone` are marked as found by
    this model only."""
    starts = [word.start for word in words]

    def piece(begin: int, end: int) -> str:
        parts, at = [], begin
        for word in words[bisect_left(starts, begin) : bisect_left(starts, end)]:
            parts.append(_kept(whole[at : word.start]))
            parts.append(
                f'<span title="{plain(word.tag)} {word.score:.3f}">{_kept(whole[word.start : word.end])}'
            )
            parts.append("</span>")
            at = word.end
        return "".join([*parts, _kept(whole[at:end])])

    parts, at = [], 0
    for entity in entities:
        parts.append(piece(at, entity.start))
        only = ' <span class="only">only here</span>' if entity in alone else ""
        parts.append(
            f'<mark class="entity {looks[entity.label]}{" alone" if only else ""}" '
            f'title="{plain(entity.label)} {entity.score:.3f}">{piece(entity.start, entity.end)}'
            f'<span class="tag">{text(entity.label)}{only}</span></mark>'
        )
        at = entity.end
    return f'<div class="text" dir="auto">{"".join([*parts, piece(at, len(whole))])}</div>'


def legend(entities: Sequence[Entity], looks: Mapping[str, str]) -> str:
    """The types that were found, in the model's order, and how often."""
    counts = Counter(entity.label for entity in entities)
    items = [
        f'<li><span class="swatch {look}"></span>{text(name)} {_count(counts[name])}</li>'
        for name, look in looks.items()
        if counts[name]
    ]
    return f'<ul class="legend" aria-label="Entity types found">{"".join(items)}</ul>' if items else ""


def _count(number: int) -> str:
    return f'<span class="count">{number:,}</span>'


def _kept(part: str) -> str:
    """As `plain`, but with its lines and tabs, which the page shows as such."""
    return "".join(piece if piece in ("\n", "\t") else plain(piece) for piece in _WHITE_SPACE.split(part))
