"""Predictions for a corpus and their confidence, in one pass that keeps no logits in memory."""

from collections.abc import Callable, Collection
from functools import reduce
from typing import NamedTuple

import numpy as np

from multitask.common import distributed
from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import TASKS, UNLABELLED, concatenated_ranges
from multitask.evaluation.calibration import ConfidenceBins, bin_confidences
from multitask.evaluation.metrics import Matches, match_entities
from multitask.inference.decoding import DecodedRows, decode_corpus, entity_scores, softmax
from multitask.inference.predictor import Predictor


class CorpusPredictions(NamedTuple):
    """A model's predictions for N rows and W words.

    The fields of a task are None if the model has not learned it or if it was not requested. Where there are
    two values, the first is at temperature 1 and the second at the model's own temperature."""

    classes: np.ndarray | None = None  # (N,) class ids
    class_probabilities: np.ndarray | None = None  # (2, N) of the predicted class
    tags: np.ndarray | None = None  # (W,) tag ids
    matches: Matches | None = None  # predicted entities against gold entities, in annotated rows
    entity_scores: np.ndarray | None = None  # (2, P) of the predicted entities in `matches`
    outside_probabilities: np.ndarray | None = None  # (E,) mean probability of O in each gold entity
    word_bins: tuple[ConfidenceBins, ConfidenceBins] | None = None  # of the tags of annotated rows

    def class_bins(self, corpus: EncodedCorpus) -> list[ConfidenceBins]:
        """Bins of the classes of annotated rows, at temperature 1 and at the model's own. Needs task A."""
        assert self.classes is not None and self.class_probabilities is not None
        annotated = corpus.row_classes != UNLABELLED
        correct = (self.classes == corpus.row_classes)[annotated]
        return [bin_confidences(row[annotated], correct) for row in self.class_probabilities]

    def entity_bins(self) -> list[ConfidenceBins]:
        """Bins of the entities predicted in annotated rows, at temperature 1 and at the model's own. An
        entity is correct if both ends and the type are. Needs task B."""
        assert self.matches is not None and self.entity_scores is not None
        return [bin_confidences(scores, self.matches.correct) for scores in self.entity_scores]


def predict_with_confidence(
    predictor: Predictor,
    corpus: EncodedCorpus,
    progress: Callable[[int], object] | None = None,
    tasks: Collection[str] = TASKS,
) -> CorpusPredictions:
    """Predict the requested tasks for all rows of a corpus that is encoded for this model.

    Several processes share the rows; each row is read once, and every process gets all predictions. Calls
    `progress` with the number of rows done since the last call."""
    labels, config = predictor.labels, predictor.config
    classes, class_probabilities = [np.zeros(0, np.int32)], [np.zeros((2, 0), np.float32)]
    tags, confidence = [np.zeros(0, np.int32)], _TagConfidence(predictor, corpus)
    shared = distributed.share_of_rows(len(corpus))
    for rows in decode_corpus(predictor.runner, corpus, labels, tasks, progress, shared):
        if rows.classes is not None and rows.sentence_logits is not None:
            ids = rows.classes.astype(np.int32)
            classes.append(ids)
            class_probabilities.append(_probabilities(rows.sentence_logits, ids, config.temperature_task_a))
        if rows.tags is not None and rows.word_logits is not None:
            confidence.add(rows, rows.word_logits, rows.tags)
            tags.append(rows.tags)
    predictions = CorpusPredictions()
    if labels.classes and "task_a" in tasks:
        all_classes = distributed.concatenate(np.concatenate(classes))
        predictions = CorpusPredictions(all_classes, _concatenate_columns(class_probabilities))
    if labels.types and "task_b" in tasks:
        all_tags = distributed.concatenate(np.concatenate(tags))
        matches = match_entities(corpus, labels, all_tags)
        of_entities, outside, bins = confidence.of_all_processes()
        predictions = CorpusPredictions(*predictions[:2], all_tags, matches, of_entities, outside, bins)
    return predictions


class _TagConfidence:
    """Collects the confidence of tags and entities in annotated rows, chunk by chunk."""

    def __init__(self, predictor: Predictor, corpus: EncodedCorpus):
        self.corpus, self.labels = corpus, predictor.labels
        self.temperature = float(predictor.config.temperature_task_b)
        self.entity_scores = [np.zeros((2, 0))]  # (2, entities) of each chunk
        self.outside_probabilities = [np.zeros((1, 0))]  # (1, gold entities) of each chunk
        empty = bin_confidences(np.zeros(0), np.zeros(0, bool))
        self.bins = empty, empty

    def add(self, rows: DecodedRows, logits: np.ndarray, tags: np.ndarray) -> None:
        """Add a chunk of rows with its word logits (words, K) and tags (words,)."""
        corpus, offsets = self.corpus, rows.offsets
        annotated = corpus.row_tagged[rows.first : rows.last]
        spans = self.labels.find_spans(tags, offsets)
        in_annotated = annotated[np.searchsorted(offsets, spans[0], side="right") - 1]
        starts, ends, types = (column[in_annotated] for column in spans)
        scores = [entity_scores(logits, self.labels, starts, ends, types, t) for t in (1.0, self.temperature)]
        self.entity_scores.append(np.stack(scores))
        begin, end = corpus.word_rows[[rows.first, rows.last]]
        first, last = np.searchsorted(corpus.spans[0], [begin, end])
        gold_starts, gold_ends = corpus.spans[:2, first:last] - begin
        outside = _mean_outside(logits, gold_starts, gold_ends, self.temperature)
        self.outside_probabilities.append(outside[None])
        words = np.repeat(annotated, np.diff(offsets))
        correct = (tags == corpus.word_tags[begin:end])[words]
        confidences = _probabilities(logits[words], tags[words], self.temperature)
        before, after = (bin_confidences(row, correct) for row in confidences)
        self.bins = self.bins[0].plus(before), self.bins[1].plus(after)

    def of_all_processes(self) -> tuple[np.ndarray, np.ndarray, tuple[ConfidenceBins, ConfidenceBins]]:
        """The last three fields of CorpusPredictions, from the rows of all processes."""
        before, after = zip(*distributed.all_gather(self.bins))
        bins = reduce(ConfidenceBins.plus, before), reduce(ConfidenceBins.plus, after)
        outside = _concatenate_columns(self.outside_probabilities)[0]
        return _concatenate_columns(self.entity_scores), outside, bins


def _concatenate_columns(parts: list[np.ndarray]) -> np.ndarray:
    """Parts (k, n) of all processes → one array (k, N)."""
    return distributed.concatenate(np.concatenate(parts, 1).T).T


def _probabilities(logits: np.ndarray, ids: np.ndarray, temperature: float) -> np.ndarray:
    """The probabilities (2, n) of ids (n,) by logits (n, K), at temperature 1 and at `temperature`."""
    items = np.arange(len(ids))
    return np.stack([softmax(logits / np.float32(t))[items, ids] for t in (1.0, temperature)])


def _mean_outside(logits: np.ndarray, starts: np.ndarray, ends: np.ndarray, temperature: float) -> np.ndarray:
    """The mean probability (E,) of O over the words of each span (E,), by word logits (W, K)."""
    if not len(starts):
        return np.zeros(0)
    lengths = ends - starts
    words = concatenated_ranges(starts, lengths)
    outside = softmax(logits[words] / np.float32(temperature))[:, 0].astype(np.float64)
    return np.add.reduceat(outside, np.cumsum(lengths) - lengths) / lengths
