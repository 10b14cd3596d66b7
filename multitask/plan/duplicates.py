"""Warnings about texts that stand in two splits, and about texts whose annotations differ."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from multitask.data.labels import UNLABELLED
from multitask.data.splits import Split

_MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)  # odd


def duplicate_warnings(splits: Mapping[str, Split], paths: Mapping[str, Sequence[str]]) -> list[str]:
    """Warnings about rows of one split that another one has too, and about texts with two annotations.

    Args:
        splits: by name.
        paths: of each split's files, in the order of its rows."""
    warnings = []
    for first, second in combinations(splits, 2):
        known, hashes = (splits[name].arrays["row_hashes"] for name in (first, second))
        again = np.flatnonzero(np.isin(hashes, known) & _has_words(splits[second]))
        if len(again):
            place = place_of_row(splits[second], paths[second], again[0])
            warnings.append(
                f"warning: {len(again):,} rows of {second} are also in {first}, the first at {place}: scores "
                f"on {second} are too good"
            )
    return warnings + _conflicts(splits, paths)


def conflicting_rows(split: Split) -> dict[str, list[tuple[int, int]]]:
    """Pairs of annotated rows of the same words whose "classes", or whose "entities", differ."""
    hashes, classes, entities, tagged = _annotation(split, {}, {})
    annotated = {"classes": (classes, classes != UNLABELLED), "entities": (entities, tagged)}
    found = {}
    for what, (values, has) in annotated.items():
        rows = np.flatnonzero(has)
        pairs = rows[_differing(hashes[rows], values[rows])]
        found[what] = [(int(first), int(second)) for first, second in pairs]
    return found


def _conflicts(splits: Mapping[str, Split], paths: Mapping[str, Sequence[str]]) -> list[str]:
    numbers: dict[str, dict[str, int]] = {"classes": {}, "types": {}}
    parts = [_annotation(split, numbers["classes"], numbers["types"]) for split in splits.values()]
    hashes, classes, entities, tagged = (np.concatenate(part) for part in zip(*parts))
    ends = np.cumsum([len(split) for split in splits.values()])

    def place(row: int) -> str:
        number = int(np.searchsorted(ends, row, side="right"))
        name, before = list(splits)[number], ends[number - 1] if number else 0
        return place_of_row(splits[name], paths[name], row - before)

    warnings, names = [], list(numbers["classes"])
    for what, values, rows in (
        ("classes", classes, np.flatnonzero(classes != UNLABELLED)),
        ("entities", entities, np.flatnonzero(tagged)),
    ):
        pairs = rows[_differing(hashes[rows], values[rows])]
        if len(pairs):
            count, pair = len(np.unique(hashes[pairs[:, 0]])), pairs[0]
            shown = [place(int(row)) for row in pair]
            if what == "classes":
                shown = [f"{at} ({names[classes[row]]})" for at, row in zip(shown, pair)]
            warnings.append(
                f"warning: {count:,} texts have different {what} in different rows, the first at "
                f"{' and '.join(shown)}: a model can't learn both"
            )
    return warnings


def _annotation(split: Split, class_numbers: dict[str, int], type_numbers: dict[str, int]) -> tuple:
    """The hash, the class, a number for the entities, and whether these are annotated, of each row with
    words."""
    a = split.arrays
    classes = _renumbered(split.class_names, class_numbers)[np.maximum(a["row_classes"], -1)]
    row = np.searchsorted(a["word_rows"], a["span_starts"], side="right") - 1
    first = a["word_rows"][:-1][row]
    types = _renumbered(split.type_names, type_numbers)[a["span_types"]]
    parts = np.stack([a["span_starts"] - first, a["span_ends"] - first, types]).astype(np.uint64) + np.uint64(
        1
    )
    spans = (parts * _MIX[:, None]).sum(0, dtype=np.uint64)
    spans ^= spans >> np.uint64(29)
    entities = np.zeros(len(split), np.uint64)
    np.add.at(entities, row, spans * _MIX[0])  # unsigned numbers wrap around
    has_words = _has_words(split)
    return (
        a["row_hashes"],
        np.where(has_words, classes, UNLABELLED),
        entities,
        a["row_tagged"] & has_words,
    )


def _renumbered(names: Sequence[str], numbers: dict[str, int]) -> np.ndarray:
    """Number of a name in its split → its number in all splits; the last entry is for UNLABELLED, as −1."""
    return np.array([*(numbers.setdefault(name, len(numbers)) for name in names), UNLABELLED], np.int64)


def _differing(hashes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Pairs (P, 2) of rows of one text with different values, sorted: for each value of a text its first row,
    with that of the text's next value."""
    order = np.lexsort((values, hashes))
    h, v = hashes[order], values[order]
    new = np.append(True, (h[1:] != h[:-1]) | (v[1:] != v[:-1]))[: len(h)]
    order, h = order[new], h[new]  # the first row of each text and value
    at = np.flatnonzero(h[1:] == h[:-1])
    pairs = np.sort(np.stack([order[at], order[at + 1]], 1), 1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _has_words(split: Split) -> np.ndarray:
    return np.diff(split.arrays["word_rows"]) > 0


def place_of_row(split: Split, paths: Sequence[str], row: int) -> str:
    """file:line of a row."""
    file = int(np.searchsorted(split.arrays["file_rows"], row, side="right")) - 1
    return f"{paths[file]}:{split.arrays['row_lines'][row]}"
