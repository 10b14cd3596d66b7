"""Probabilities that mean what they say: a head's temperature, and how far confidence is from the truth."""

from typing import NamedTuple

import numpy as np

from multitask.common import distributed
from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import UNLABELLED, LabelSpace
from multitask.inference.runner import run_model, runner_of

BOUNDS = 0.05, 20.0  # of a temperature
_WORDS = 1 << 18  # that a temperature is fitted on, about: what is held of a large corpus
_PARTS = 64  # of a large corpus, in each of which some rows are taken
_BLOCK = 1 << 14  # items whose probabilities are held at once


class ConfidenceBins(NamedTuple):
    """Answers by their confidence, in bins of equal width over 0..1: of each bin how many there are, the sum
    of their confidences, and how many are right. The bins of parts add up to those of the whole."""

    count: np.ndarray  # (bins,)
    total: np.ndarray  # (bins,)
    right: np.ndarray  # (bins,)

    def plus(self, other: "ConfidenceBins") -> "ConfidenceBins":
        return ConfidenceBins(*(a + b for a, b in zip(self, other)))

    @property
    def confidence(self) -> np.ndarray:
        """(bins,) means; 0 where a bin is empty."""
        return self.total / np.maximum(self.count, 1)

    @property
    def accuracy(self) -> np.ndarray:
        """(bins,) shares; 0 where a bin is empty."""
        return self.right / np.maximum(self.count, 1)

    @property
    def error(self) -> float:
        """Expected calibration error: the gap between a bin's accuracy and its confidence, averaged over all
        answers (Naeini et al. 2015); 0 without answers."""
        return float(np.abs(self.right - self.total).sum() / max(self.count.sum(), 1))


def bin_confidences(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> ConfidenceBins:
    """Confidences (n,) in 0..1 and which answers are right (n,) → bins; an edge belongs to the bin below."""
    at = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    weights = None, confidence, correct
    return ConfidenceBins(*(np.bincount(at, each, bins) for each in weights))


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """`ConfidenceBins.error` of confidences (n,) and which answers are right (n,)."""
    return bin_confidences(confidence, correct, bins).error


def fit_temperature(logits: np.ndarray, gold: np.ndarray) -> float:
    """The temperature within BOUNDS that, dividing logits (n, K), makes gold ids (n,) likeliest.

    Guo et al. 2017, §4.2. Ids outside 0..K−1 are left out; 1 where there are none left, or where every
    temperature is as good. Logits that are always right want the lowest."""
    # of the inverse the loss is convex: its slope only rises, so the two ends bracket the minimum
    low, high = 1 / BOUNDS[1], 1 / BOUNDS[0]
    lowest, highest = (_slope(logits, gold, end)[0] for end in (low, high))
    if lowest >= 0 or highest <= 0:
        return 1.0 if lowest >= 0 >= highest else BOUNDS[1] if lowest >= 0 else BOUNDS[0]
    at = 1.0
    for _ in range(100):
        slope, curvature = _slope(logits, gold, at)
        low, high = (low, at) if slope > 0 else (at, high)
        following = at - slope / curvature if curvature > 0 else 0.0  # Newton's method
        if not low <= following <= high:
            following = float(np.sqrt(low * high))
        if abs(following / at - 1) < 1e-7:
            break
        at = following
    return 1 / at


def _slope(logits: np.ndarray, gold: np.ndarray, inverse: float) -> tuple[float, float]:
    """First and second derivative of the loss with respect to the inverse temperature, over all items."""
    first = second = 0.0
    for start in range(0, len(gold), _BLOCK):
        ids = gold[start : start + _BLOCK]
        usable = np.flatnonzero((ids >= 0) & (ids < logits.shape[1]))
        z = logits[start + usable].astype(np.float64)
        if not len(z):
            continue
        z -= z.max(1, keepdims=True)
        powers = np.exp(inverse * z)
        chances = powers / powers.sum(1, keepdims=True)
        mean = (chances * z).sum(1)
        first += float((mean - z[np.arange(len(z)), ids[usable]]).sum())
        second += float((chances * (z - mean[:, None]) ** 2).sum())
    return first, second


def fit_temperatures(model, corpus: EncodedCorpus, labels: LabelSpace) -> tuple[float, float]:
    """The temperatures of task A and task B of a model, or a Runner, on the labels of rows that it never saw.

    1 for a task that the model has no names for, that nothing is annotated for, or in which it is never
    wrong: likelihood alone would make it infinitely sure. Of a large corpus an even sample is read. Several
    processes share the rows, and all of them get the same."""
    runner, classes, tags = runner_of(model), len(labels.classes), len(labels.tags)
    parts_a = [(np.zeros((0, classes), np.float32), np.zeros(0, np.int32))]
    parts_b = [(np.zeros((0, tags), np.float32), np.zeros(0, np.int32))]
    for rows in _sample(corpus):
        for out in run_model(runner, corpus, rows=rows):
            words = slice(corpus.word_rows[out.first], corpus.word_rows[out.last])
            if labels.classes:
                parts_a.append(_labelled(out.sentence_logits, corpus.row_classes[out.first : out.last]))
            if labels.types:
                parts_b.append(_labelled(out.word_logits, corpus.word_tags[words]))
    return _temperature(parts_a), _temperature(parts_b)


def _sample(corpus: EncodedCorpus) -> list[tuple[int, int]]:
    """This process's share of the rows, as ranges: of all rows, or of those taken from each part."""
    total, size = int(corpus.word_rows[-1]), len(corpus)
    if total <= _WORDS:
        return [distributed.share_of_rows(size)]
    edges = size * np.arange(_PARTS + 1) // _PARTS
    most = corpus.word_rows[edges[:-1]] + _WORDS // _PARTS
    ends = np.searchsorted(corpus.word_rows, most, side="right") - 1
    ends = np.minimum(np.maximum(ends, edges[:-1] + 1), edges[1:])  # a row, however long it is
    first, last = distributed.share_of_rows(_PARTS)
    return list(zip(edges[first:last].tolist(), ends[first:last].tolist()))


def _labelled(logits: np.ndarray, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kept = (gold != UNLABELLED) & (gold < logits.shape[1])  # an id beyond them is of an unknown name
    return logits[kept], gold[kept]


def _temperature(parts: list[tuple[np.ndarray, np.ndarray]]) -> float:
    logits, gold = (distributed.concatenate(np.concatenate(arrays)) for arrays in zip(*parts))
    wrong = logits.argmax(1) != gold if len(gold) else np.zeros(0, bool)
    return fit_temperature(logits, gold) if wrong.any() else 1.0
