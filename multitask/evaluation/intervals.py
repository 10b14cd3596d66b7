"""Confidence intervals of metrics, and comparison of two models, by the bootstrap over rows."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import UNLABELLED, LabelSpace
from multitask.evaluation.metrics import match_entities

METRICS = ("accuracy", "macro_f1", "entity_f1", "exact_match")
RESAMPLES = 1000
MIN_ROWS = 30  # with fewer rows, resampling underestimates how much other rows would change the metrics
BLOCK_SIZE = 1 << 20  # counts that are in memory at once
_ALPHA = 0.05  # significance level; the intervals cover 1 − _ALPHA


class RowCounts(NamedTuple):
    """What each row (N,) adds to the metrics; −1 in a row that does not count for the task."""

    gold_class: np.ndarray
    predicted_class: np.ndarray
    correct: np.ndarray  # entities
    predicted: np.ndarray  # entities
    gold: np.ndarray  # entities
    whole: np.ndarray  # 1: exact match, 0: none; −1 in rows that are not annotated for every scored task


class Comparison(NamedTuple):
    """A metric of two models on the same rows; `low` to `high` is the 95 % interval of the difference."""

    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    rows: int

    @property
    def verdict(self) -> str:
        """The result in words. At p < 5 %, one in twenty comparisons of equal models shows a difference."""
        if self.rows < MIN_ROWS:
            return f"too few rows to tell (below {MIN_ROWS})"
        if self.p >= _ALPHA:
            return "no difference that these rows show"
        return "the first is better" if self.difference > 0 else "the second is better"


def count_by_row(
    corpus: EncodedCorpus, labels: LabelSpace, classes: np.ndarray | None, tags: np.ndarray | None
) -> RowCounts:
    """Split what `metrics.score` counts, for class ids (N,) and tag ids (W,), into rows. None leaves a task
    out."""
    size = len(corpus)
    uncounted, whole, complete = np.full(size, -1), np.ones(size, np.int64), np.ones(size, bool)
    gold_class = predicted_class = correct = predicted = gold = uncounted
    if classes is not None and (has_class := corpus.row_classes != UNLABELLED).any():
        gold_class = np.where(has_class, corpus.row_classes, -1)
        predicted_class = np.where(has_class, classes, -1)
        whole &= classes == corpus.row_classes
        complete &= has_class
    if tags is not None and corpus.row_tagged.any():
        m = match_entities(corpus, labels, tags)
        correct, predicted, gold = (
            np.where(corpus.row_tagged, _count_starts(corpus, starts), -1)
            for starts in (m.starts[m.correct], m.starts, corpus.spans[0])
        )
        whole &= m.row_correct
        complete &= corpus.row_tagged
    scored = gold_class is not uncounted or gold is not uncounted
    whole = np.where(complete & scored, whole, -1)
    return RowCounts(gold_class, predicted_class, correct, predicted, gold, whole)


def _count_starts(corpus: EncodedCorpus, starts: np.ndarray) -> np.ndarray:
    """The number of entities in each row (N,), by their first words."""
    return np.bincount(np.searchsorted(corpus.word_rows, starts, side="right") - 1, minlength=len(corpus))


def scores_of(rows: RowCounts, times: np.ndarray) -> np.ndarray:
    """The metrics (R, 4) of resamples, as METRICS, where row i occurs times[:, i] times (R, N); NaN where no
    row counts."""
    size = 1 + max(int(rows.gold_class.max(initial=0)), int(rows.predicted_class.max(initial=0)))
    gold, predicted = (_sum_by_id(times, ids, size) for ids in (rows.gold_class, rows.predicted_class))
    correct_class = np.where(rows.gold_class == rows.predicted_class, rows.gold_class, -1)
    correct = _sum_by_id(times, correct_class, size)
    tagged, complete = rows.gold >= 0, rows.whole >= 0
    entities = [times @ np.where(tagged, column, 0) for column in (rows.correct, rows.predicted, rows.gold)]
    with np.errstate(invalid="ignore"):  # 0 / 0 if no row of a resample counts
        accuracy = correct.sum(1) / gold.sum(1)
        f1 = 2 * correct / np.maximum(predicted + gold, 1)
        macro_f1 = f1.sum(1) / (predicted + gold > 0).sum(1)
        entity_f1 = 2 * entities[0] / np.maximum(entities[1] + entities[2], 1)
        entity_f1[times @ tagged == 0] = np.nan
        exact_match = times @ (rows.whole == 1) / (times @ complete)
    return np.stack([accuracy, macro_f1, entity_f1, exact_match], 1)


def _sum_by_id(times: np.ndarray, ids: np.ndarray, size: int) -> np.ndarray:
    """Sum times (R, N) over the rows with each id (N,) → (R, size). Rows with id −1 are left out."""
    counted = ids >= 0
    cells = ids[counted] + size * np.arange(len(times))[:, None]
    return np.bincount(cells.ravel(), times[:, counted].ravel(), size * len(times)).reshape(-1, size)


def bootstrap_intervals(rows: RowCounts, seed: int = 0) -> dict[str, tuple[float, float] | None]:
    """95 % percentile intervals of the metrics over RESAMPLES resamples of the rows (Efron 1979); None for a
    metric that does not exist."""
    columns, counts = group_equal_rows(rows)
    groups = RowCounts(*columns)
    scores = np.concatenate([scores_of(groups, times) for times in resample_counts(counts, seed)])
    observed = scores_of(groups, counts[None])[0]
    return {
        name: None if np.isnan(value) else _interval(column)
        for name, column, value in zip(METRICS, scores.T, observed)
    }


def compare_means(
    first: Sequence[RowCounts], second: Sequence[RowCounts], seed: int = 0
) -> dict[str, Comparison | None]:
    """Compare two groups of models, such as several seeds of two kinds of training, by their mean metrics on
    the same rows: the paired bootstrap scores all models on the same resamples. None for a metric that one
    group lacks. The interval covers other rows, not other seeds.

    p is how often the difference of a resample, shifted to mean 0, is at least as far from 0 as the observed
    one, on either side (Koehn 2004; Berg-Kirkpatrick, Burkett & Klein 2012)."""
    columns, counts = group_equal_rows([column for rows in (*first, *second) for column in rows])
    width = len(RowCounts._fields)
    models = [RowCounts(*columns[at : at + width]) for at in range(0, len(columns), width)]
    pair = models[: len(first)], models[len(first) :]

    def means(times: np.ndarray) -> list[np.ndarray]:
        return [np.mean([scores_of(rows, times) for rows in group], axis=0) for group in pair]

    observed = [scores[0] for scores in means(counts[None])]
    differences = np.concatenate([a - b for a, b in map(means, resample_counts(counts, seed))])
    counted = {"entity_f1": first[0].gold, "exact_match": first[0].whole}  # −1 in rows that do not count
    comparisons: dict[str, Comparison | None] = dict.fromkeys(METRICS)
    for name, a, b, resampled in zip(METRICS, *observed, differences.T):
        if not np.isnan(a - b):
            resampled = resampled[~np.isnan(resampled)]
            as_far = np.abs(resampled - (a - b)) >= abs(a - b) - 1e-12  # tolerates rounding errors
            p = float(1 + as_far.sum()) / (1 + len(resampled))
            rows = int((counted.get(name, first[0].gold_class) >= 0).sum())
            low, high = _interval(resampled)
            comparisons[name] = Comparison(float(a), float(b), float(a - b), low, high, p, rows)
    return comparisons


def group_equal_rows(columns: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """Group the rows that are equal in all columns (N,) → the groups' columns (G,) and numbers of rows (G,).
    A million rows have a few thousand groups; drawing how often each occurs replaces drawing rows."""
    group = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        low = int(column.min())
        span = int(column.max()) - low + 1
        group = np.unique(group * span + (column - low), return_inverse=True)[1]
    _, first, counts = np.unique(group, return_index=True, return_counts=True)
    return [column[first] for column in columns], counts


def resample_counts(counts: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """How often each group (G,) is drawn in each resample of as many rows as there are, in blocks (R, G)."""
    random, rows = np.random.default_rng(seed), int(counts.sum())
    block = max(1, min(RESAMPLES, BLOCK_SIZE // len(counts)))
    for start in range(0, RESAMPLES, block):
        yield random.multinomial(rows, counts / rows, min(block, RESAMPLES - start))


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(values, [50 * _ALPHA, 100 - 50 * _ALPHA])
    return float(low), float(high)
