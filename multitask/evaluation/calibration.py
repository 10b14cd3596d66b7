"""Calibration: a temperature for each head, and the expected calibration error."""

from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from multitask.common import distributed
from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import LabelSpace
from multitask.inference.runner import run_model, runner_of

BOUNDS = 0.05, 20.0  # lowest and highest temperature
SAMPLE_WORDS = 1 << 18  # about; limits the memory that a large corpus takes
SAMPLE_PARTS = 64  # a large corpus is sampled at the beginning of each part
BLOCK_SIZE = 1 << 14  # items whose probabilities are in memory at once


@dataclass(frozen=True)
class ConfidenceBins:
    """Predictions in bins of equal width by their confidence, 0 to 1. Bins of parts add up to the whole."""

    count: np.ndarray  # (bins,) predictions
    total: np.ndarray  # (bins,) sum of their confidences
    correct: np.ndarray  # (bins,) correct predictions

    def plus(self, other: "ConfidenceBins") -> "ConfidenceBins":
        """The bins of both sets of predictions together."""
        return ConfidenceBins(*(a + b for a, b in zip(astuple(self), astuple(other))))

    @property
    def confidence(self) -> np.ndarray:
        """(bins,) mean confidence; 0 in an empty bin."""
        return self.total / np.maximum(self.count, 1)

    @property
    def accuracy(self) -> np.ndarray:
        """(bins,) share of correct predictions; 0 in an empty bin."""
        return self.correct / np.maximum(self.count, 1)

    @property
    def error(self) -> float:
        """Expected calibration error: the gap between a bin's accuracy and its confidence, averaged over all
        predictions (Naeini et al. 2015); 0 without predictions."""
        return float(np.abs(self.correct - self.total).sum() / max(self.count.sum(), 1))


def bin_confidences(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> ConfidenceBins:
    """Put confidences (n,), 0 to 1, into bins, with `correct` (n,) bool. An edge belongs to the bin below."""
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return ConfidenceBins(*(np.bincount(index, weights, bins) for weights in (None, confidence, correct)))


def fit_temperature(logits: np.ndarray, gold: np.ndarray) -> float:
    """The temperature within BOUNDS that minimizes the cross-entropy of logits (n, K) and gold ids (n,), Guo
    et al. 2017, §4.2. Ids outside 0..K−1 are ignored. Returns 1 if no id is left or if all temperatures are
    equally good; the lowest temperature if all logits are correct."""
    # the loss is convex in the inverse temperature: its slope only rises, so the bounds bracket the minimum
    low, high = 1 / BOUNDS[1], 1 / BOUNDS[0]
    logits, gold = _labelled(logits, gold)
    slope_low, slope_high = (_derivatives(logits, gold, end)[0] for end in (low, high))
    if slope_low >= 0 or slope_high <= 0:
        return 1.0 if slope_low >= 0 >= slope_high else BOUNDS[1] if slope_low >= 0 else BOUNDS[0]
    inverse = 1.0
    for _ in range(100):
        slope, curvature = _derivatives(logits, gold, inverse)
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        following = inverse - slope / curvature if curvature > 0 else 0.0  # Newton's method
        if not low <= following <= high:
            following = float(np.sqrt(low * high))
        if abs(following / inverse - 1) < 1e-7:
            break
        inverse = following
    return 1 / inverse


def _derivatives(logits: np.ndarray, gold: np.ndarray, inverse: float) -> tuple[float, float]:
    """First and second derivative of the summed loss with respect to the inverse temperature."""
    first = second = 0.0
    for start in range(0, len(gold), BLOCK_SIZE):
        ids = gold[start : start + BLOCK_SIZE]
        z = logits[start : start + BLOCK_SIZE].astype(np.float64)
        z -= z.max(1, keepdims=True)
        powers = np.exp(inverse * z)
        probabilities = powers / powers.sum(1, keepdims=True)
        mean = (probabilities * z).sum(1)
        first += float((mean - z[np.arange(len(z)), ids]).sum())
        second += float((probabilities * (z - mean[:, None]) ** 2).sum())
    return first, second


def fit_temperatures(model: Any, corpus: EncodedCorpus, labels: LabelSpace) -> tuple[float, float]:
    """Fit the temperatures of task A and task B of a model, or a Runner, on annotated rows that it was not
    trained on. A large corpus is sampled evenly. Several processes share the rows and get the same result.

    A temperature is 1 if the model has no labels for the task, if no row is annotated for it, or if every
    prediction is correct: the likelihood alone would make the model infinitely confident."""
    runner, classes, tags = runner_of(model), len(labels.classes), len(labels.tags)
    parts_a = [(np.zeros((0, classes), np.float32), np.zeros(0, np.int32))]
    parts_b = [(np.zeros((0, tags), np.float32), np.zeros(0, np.int32))]
    for rows in sample_rows(corpus):
        for out in run_model(runner, corpus, rows=rows):
            words = slice(corpus.word_rows[out.first], corpus.word_rows[out.last])
            if labels.classes and out.sentence_logits is not None:
                parts_a.append(_labelled(out.sentence_logits, corpus.row_classes[out.first : out.last]))
            if labels.types and out.word_logits is not None:
                parts_b.append(_labelled(out.word_logits, corpus.word_tags[words]))
    return _temperature(parts_a), _temperature(parts_b)


def sample_rows(corpus: EncodedCorpus) -> list[tuple[int, int]]:
    """Row ranges [first, last) that this process reads: of all rows, or of a sample from a large corpus."""
    total, size = int(corpus.word_rows[-1]), len(corpus)
    if total <= SAMPLE_WORDS:
        return [distributed.share_of_rows(size)]
    edges = size * np.arange(SAMPLE_PARTS + 1) // SAMPLE_PARTS
    limits = corpus.word_rows[edges[:-1]] + SAMPLE_WORDS // SAMPLE_PARTS
    ends = np.searchsorted(corpus.word_rows, limits, side="right") - 1
    ends = np.minimum(np.maximum(ends, edges[:-1] + 1), edges[1:])  # at least one row, even a long one
    first, last = distributed.share_of_rows(SAMPLE_PARTS)
    return list(zip(edges[first:last].tolist(), ends[first:last].tolist()))


def _labelled(logits: np.ndarray, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = (gold >= 0) & (gold < logits.shape[1])  # larger ids stand for unknown labels
    return logits[known], gold[known]


def _temperature(parts: list[tuple[np.ndarray, np.ndarray]]) -> float:
    logits, gold = (distributed.concatenate(np.concatenate(arrays)) for arrays in zip(*parts))
    wrong = logits.argmax(1) != gold if len(gold) else np.zeros(0, bool)
    return fit_temperature(logits, gold) if wrong.any() else 1.0
