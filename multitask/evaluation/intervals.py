"""How much of a score is chance: intervals, and two models on the same rows, by resampling rows."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import UNLABELLED, LabelSpace
from multitask.evaluation.metrics import match_entities

METRICS = ("accuracy", "macro_f1", "entity_f1", "exact_match")
RESAMPLES = 1000
FEW = 30  # rows; of fewer, resampling shows too little of what other rows would have given
_LEVEL = 0.05
_BLOCK = 1 << 20  # counts that are held at once


class RowCounts(NamedTuple):
    """What each row (N,) adds to the scores; −1 where it counts for none of that task."""

    gold_class: np.ndarray
    said_class: np.ndarray
    correct: np.ndarray  # entities
    said: np.ndarray
    gold: np.ndarray
    whole: np.ndarray  # 1: all is right, 0: something is not; −1 in rows not annotated for all that is scored


class Comparison(NamedTuple):
    """A score of two models on the same rows; low and high are the 95 % interval of their difference."""

    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    rows: int

    @property
    def verdict(self) -> str:
        """In words. At 5 % each, one of twenty comparisons of equal models finds a difference."""
        if self.rows < FEW:
            return f"too few rows to tell (below {FEW})"
        if self.p >= _LEVEL:
            return "no difference that these rows show"
        return "the first is better" if self.difference > 0 else "the second is better"


def count_by_row(
    corpus: EncodedCorpus, labels: LabelSpace, classes: np.ndarray | None, tags: np.ndarray | None
) -> RowCounts:
    """Predicted class ids (N,) and tag ids (W,), as for `evaluation.score` → what it counts, by row."""
    size = len(corpus)
    nothing, whole = np.full(size, -1), np.ones(size, np.int64)
    gold_class = said_class = correct = said = gold = nothing
    complete = np.ones(size, bool)
    if classes is not None and (has_class := corpus.row_classes != UNLABELLED).any():
        gold_class = np.where(has_class, corpus.row_classes, -1)
        said_class = np.where(has_class, classes, -1)
        whole &= classes == corpus.row_classes
        complete &= has_class
    if tags is not None and corpus.row_tagged.any():
        m = match_entities(corpus, labels, tags)
        places = m.starts[m.right], m.starts, corpus.spans[0]
        correct, said, gold = (np.where(corpus.row_tagged, _by_row(corpus, starts), -1) for starts in places)
        whole &= m.row_right
        complete &= corpus.row_tagged
    scored = gold_class is not nothing or gold is not nothing
    return RowCounts(gold_class, said_class, correct, said, gold, np.where(complete & scored, whole, -1))


def _by_row(corpus: EncodedCorpus, starts: np.ndarray) -> np.ndarray:
    """Entities that begin at these words → how many each row has (N,)."""
    return np.bincount(np.searchsorted(corpus.word_rows, starts, side="right") - 1, minlength=len(corpus))


def scores_of(rows: RowCounts, times: np.ndarray) -> np.ndarray:
    """The scores (R, 4), as METRICS, where row i is there times[:, i] times; NaN where no row counts."""
    size = 1 + max(int(rows.gold_class.max(initial=0)), int(rows.said_class.max(initial=0)))
    gold, said = (_sums(times, ids, size) for ids in (rows.gold_class, rows.said_class))
    agree = np.where(rows.gold_class == rows.said_class, rows.gold_class, -1)
    right = _sums(times, agree, size)
    tagged, whole = rows.gold >= 0, rows.whole >= 0
    entities = [times @ np.where(tagged, column, 0) for column in (rows.correct, rows.said, rows.gold)]
    with np.errstate(invalid="ignore"):  # 0 / 0 where no row of a resample counts
        accuracy = right.sum(1) / gold.sum(1)
        there = said + gold > 0
        f1 = 2 * right / np.maximum(said + gold, 1)
        macro_f1 = f1.sum(1) / there.sum(1)
        entity_f1 = 2 * entities[0] / np.maximum(entities[1] + entities[2], 1)
        entity_f1[times @ tagged == 0] = np.nan
        exact = times @ (rows.whole == 1) / (times @ whole)
    return np.stack([accuracy, macro_f1, entity_f1, exact], 1)


def _sums(times: np.ndarray, ids: np.ndarray, size: int) -> np.ndarray:
    """times (R, N) summed by the rows' ids → (R, size); rows with id −1 are in no sum."""
    kept = ids >= 0
    at = ids[kept] + size * np.arange(len(times))[:, None]
    return np.bincount(at.ravel(), times[:, kept].ravel(), size * len(times)).reshape(-1, size)


def bootstrap_intervals(rows: RowCounts, seed: int = 0) -> dict[str, tuple[float, float] | None]:
    """Percentile 95 % intervals of the scores over RESAMPLES resamples of the rows (Efron 1979); None where
    there is no score."""
    columns, counts = _kinds(rows)
    kinds = RowCounts(*columns)
    scores = np.concatenate([scores_of(kinds, times) for times in _resamples(counts, seed)])
    seen = scores_of(kinds, counts[None])[0]
    return {
        name: None if np.isnan(point) else _interval(column)
        for name, column, point in zip(METRICS, scores.T, seen)
    }


def bootstrap_difference(first: RowCounts, second: RowCounts, seed: int = 0) -> dict[str, Comparison | None]:
    """Two models' scores of the same rows by the paired bootstrap, which scores both on the same resamples;
    None where one has no score.

    p is how often the difference, moved to be 0 in the mean, is as far from 0 as the one that was seen, on
    either side (Koehn 2004; Berg-Kirkpatrick, Burkett & Klein 2012)."""
    return compare_means([first], [second], seed)


def compare_means(
    first: Sequence[RowCounts], second: Sequence[RowCounts], seed: int = 0
) -> dict[str, Comparison | None]:
    """`bootstrap_difference` of two ways of training, each with several models: the means of their scores.

    The interval is over other rows, not over other seeds."""
    columns, counts = _kinds([column for each in (*first, *second) for column in each])
    kinds = [
        RowCounts(*columns[at : at + len(RowCounts._fields)])
        for at in range(0, len(columns), len(RowCounts._fields))
    ]
    pair = kinds[: len(first)], kinds[len(first) :]

    def means(times: np.ndarray) -> list[np.ndarray]:
        return [np.mean([scores_of(each, times) for each in models], axis=0) for models in pair]

    seen = [scores[0] for scores in means(counts[None])]
    differences = np.concatenate([a - b for a, b in map(means, _resamples(counts, seed))])
    found: dict[str, Comparison | None] = dict.fromkeys(METRICS)
    for name, a, b, drawn in zip(METRICS, *seen, differences.T):
        if not np.isnan(a - b):
            drawn = drawn[~np.isnan(drawn)]
            as_far = np.abs(drawn - (a - b)) >= abs(a - b) - 1e-12  # a rounding error less is as far
            p = (1 + as_far.sum()) / (1 + len(drawn))
            rows = int((_counted(first[0], name) >= 0).sum())
            found[name] = Comparison(float(a), float(b), float(a - b), *_interval(drawn), float(p), rows)
    return found


def _counted(rows: RowCounts, name: str) -> np.ndarray:
    """The column that says which rows count for a score."""
    return {"entity_f1": rows.gold, "exact_match": rows.whole}.get(name, rows.gold_class)


def _kinds(columns: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """Columns (N,) → those of one row of each kind (U,), and how many rows are of it (U,).

    Rows that are equal in all columns are one kind: a million rows have some thousands, so that drawing how
    often each kind comes, which is the same as drawing rows, is fast."""
    kind = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        low = int(column.min())
        span = int(column.max()) - low + 1
        kind = np.unique(kind * span + (column - low), return_inverse=True)[1]
    _, first, counts = np.unique(kind, return_index=True, return_counts=True)
    return [column[first] for column in columns], counts


def _resamples(counts: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """How often each kind (U,) is drawn in each resample of as many rows as there are, in blocks (R, U)."""
    random, rows = np.random.default_rng(seed), int(counts.sum())
    block = max(1, min(RESAMPLES, _BLOCK // len(counts)))
    for start in range(0, RESAMPLES, block):
        yield random.multinomial(rows, counts / rows, min(block, RESAMPLES - start))


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(values, [50 * _LEVEL, 100 - 50 * _LEVEL])
    return float(low), float(high)
