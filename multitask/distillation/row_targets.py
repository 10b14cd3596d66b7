"""Probabilities that stand in the rows of data.train: {"probabilities": …, "tag_probabilities": …}."""

import logging
import math
from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from multitask.common.errors import InputError, list_problems
from multitask.data.examples import Example
from multitask.data.labels import LabelSpace
from multitask.data.notices import abbreviate
from multitask.data.readers import ReadResult, iter_examples, retry_with_counted_tags
from multitask.data.rows import BadRow, is_valid_utf8

logger = logging.getLogger(__name__)

_TOLERANCE = 0.01  # of a sum of probabilities, which may be rounded


class Distributions:
    """Probabilities of items by number, of each those of some names, in flat arrays."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = defaultdict(count().__next__)  # of the names
        self.items, self.ends = (
            array("q"),
            array("q", [0]),
        )  # items in rising order, and offsets in the others
        self.names, self.values = array("i"), array("d")

    def add(self, item: int, probabilities: dict[str, float]) -> None:
        """Add those of an item."""
        self.items.append(item)
        self.names.extend(map(self.numbers.__getitem__, probabilities))
        self.values.extend(probabilities.values())
        self.ends.append(len(self.names))

    def dense(self, first: int, last: int) -> np.ndarray:
        """Probabilities of items [first, last) (n, names), float64; zeros for an item that has none."""
        begin, end = np.searchsorted(np.asarray(self.items), (first, last))
        ends = np.asarray(self.ends)[begin : end + 1]
        items = np.repeat(np.asarray(self.items)[begin:end] - first, np.diff(ends))
        dense = np.zeros((last - first, len(self.numbers)))
        dense[items, self.names[ends[0] : ends[-1]]] = self.values[ends[0] : ends[-1]]
        return dense

    def has(self, size: int) -> np.ndarray:
        """Whether each of `size` items has probabilities (size,)."""
        has = np.zeros(size, bool)
        has[np.asarray(self.items)] = True
        return has


@dataclass
class RowTargets:
    """The probabilities of rows, by row and class, and of words, by word of the corpus and tag."""

    classes: Distributions = field(default_factory=Distributions)
    tags: Distributions = field(default_factory=Distributions)
    rows: int = 0
    words: int = 0

    def add(self, example: Example) -> None:
        """Add the probabilities of the next row, if it has any. Raises BadRow."""
        row, word = self.rows, self.words
        self.rows, self.words = row + 1, word + len(example.words)
        given = example.probabilities or {}
        of_tags = given.get("tag_probabilities")
        of_class = given.get("probabilities")
        checked = None if of_class is None else _distribution(of_class, "probabilities")
        if of_tags is not None:
            if not isinstance(of_tags, list):
                raise BadRow("tag_probabilities must be a list of {tag: probability}, one for each word")
            if len(of_tags) != len(example.words):
                raise BadRow(f"{len(example.words)} words, but {len(of_tags)} tag_probabilities")
            of_tags = [_distribution(one, "tag_probabilities") for one in of_tags]
        if checked is not None:
            self.classes.add(row, checked)
        for number, one in enumerate(of_tags or ()):
            self.tags.add(word + number, one)

    @property
    def labels(self) -> LabelSpace:
        """The classes and types that occur. Tags are read as BIO if all but O begin with B- or I-.

        Raises InputError for tags of both kinds."""
        tags = [tag for tag in self.tags.numbers if tag != "O"]
        prefixed = [tag for tag in tags if tag[:2] in ("B-", "I-") and len(tag) > 2]
        if prefixed and len(prefixed) < len(tags):
            plain = next(tag for tag in tags if tag not in prefixed)
            raise InputError(
                f"data.train: tag_probabilities have the tags {prefixed[0]} and {plain}: give all of them "
                "prefixes, or none"
            )
        types = dict.fromkeys(tag[2:] for tag in prefixed) if prefixed else tags
        return LabelSpace(tuple(self.classes.numbers), tuple(types), "BIO" if prefixed else "IO")


def read_row_targets(paths: Sequence[str], on_bad_row: str) -> RowTargets:
    """The probabilities in the rows of files that were read before, of the rows that are used.

    Raises InputError that lists those that can't be used, unless `on_bad_row` is "skip": then each is logged,
    and its row has none."""
    result, problems = retry_with_counted_tags(lambda count_tags: _read(paths, on_bad_row, count_tags))
    if problems and on_bad_row != "skip":
        raise InputError(list_problems(problems))
    for problem in problems:
        logger.warning(f"{problem}; its probabilities are not used")
    return result


def _read(paths: Sequence[str], on_bad_row: str, count_tags: bool) -> tuple[RowTargets, list[str]]:
    result, problems = RowTargets(), []
    for example in iter_examples(paths, ReadResult(), on_bad_row, count_tags=count_tags):
        try:
            result.add(example)
        except BadRow as reason:
            problems.append(f"{example.path}:{example.line}: {reason}")
    return result, problems


def _distribution(values: object, key: str) -> dict[str, float]:
    """The probabilities by name, without those that are 0. Raises BadRow."""
    if not isinstance(values, dict) or not values:
        raise BadRow(f"{key} has {abbreviate(values)}; a probability for each name is expected")
    for name, value in values.items():
        if type(value) not in (int, float) or not 0 <= value <= 1:
            raise BadRow(f"{key}: {abbreviate(name)} has {abbreviate(value)}; it must be from 0 to 1")
        if not name.strip() or not is_valid_utf8(name):
            raise BadRow(f"{key} has the name {abbreviate(name)}")
    total = math.fsum(values.values())
    if abs(total - 1) > _TOLERANCE:
        raise BadRow(f"{key} sum to {total:.4g}; they must sum to 1")
    return {name.strip(): value for name, value in values.items()}
