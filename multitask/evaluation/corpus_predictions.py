"""What a model says of a corpus and how sure it is of it, in one pass that holds no logits."""

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
    """A task's fields are None where the model never learned it, or it was not asked for. Pairs are at
    temperature 1 and at the model's own."""

    classes: np.ndarray | None  # (N,) class ids
    class_chances: np.ndarray | None  # (2, N) of the class that was said
    tags: np.ndarray | None  # (W,) tag ids
    matches: Matches | None  # the entities that were said of annotated rows, against the corpus
    entity_chances: np.ndarray | None  # (2, F) of those entities
    silent_chances: np.ndarray | None  # (E,) mean probability of O over the words of each annotated entity
    word_bins: tuple[ConfidenceBins, ConfidenceBins] | None  # of the tags of annotated rows


def predict_with_confidence(
    predictor: Predictor,
    corpus: EncodedCorpus,
    progress: Callable[[int], object] | None = None,
    tasks: Collection[str] = TASKS,
) -> CorpusPredictions:
    """Read a corpus that is encoded for the model.

    Several processes share the rows, each of which is read once, and all of them get the whole."""
    labels, config = predictor.labels, predictor.config
    classes, class_chances = [np.zeros(0, np.int32)], [np.zeros((2, 0), np.float32)]
    all_parts, spans = [np.zeros(0, np.int32)], _Spans(predictor, corpus)
    shared = distributed.share_of_rows(len(corpus))
    for rows in decode_corpus(predictor.runner, corpus, labels, tasks, progress, shared):
        if rows.classes is not None:
            classes.append(rows.classes.astype(np.int32))
            class_chances.append(_chances(rows.sentence_logits, classes[-1], config.temperature_task_a))
        if rows.tags is not None:
            spans.add(rows)
            all_parts.append(rows.tags)
    found_a, found_b = (None, None), (None, None, None, None, None)
    if labels.classes and "task_a" in tasks:
        found_a = distributed.concatenate(np.concatenate(classes)), _joined(class_chances)
    if labels.types and "task_b" in tasks:
        all_tags = distributed.concatenate(np.concatenate(all_parts))
        found_b = all_tags, match_entities(corpus, labels, all_tags), *spans.found()
    return CorpusPredictions(*found_a, *found_b)


class _Spans:
    """What a pass keeps of the annotated rows' words: chances of entities, and bins of tags."""

    def __init__(self, predictor: Predictor, corpus: EncodedCorpus):
        self.corpus, self.labels = corpus, predictor.labels
        self.temperature = predictor.config.temperature_task_b
        nothing = bin_confidences(np.zeros(0), np.zeros(0, bool))
        self.said, self.silent, self.bins = [np.zeros((2, 0))], [np.zeros((1, 0))], (nothing, nothing)

    def add(self, out: DecodedRows) -> None:
        """Take what is kept of some rows."""
        corpus, logits, tags, offsets = self.corpus, out.word_logits, out.tags, out.offsets
        annotated = corpus.row_tagged[out.first : out.last]
        starts, ends, types = self.labels.find_spans(tags, offsets)
        kept = annotated[np.searchsorted(offsets, starts, side="right") - 1]
        said = starts[kept], ends[kept], types[kept]
        both = 1.0, self.temperature
        self.said.append(np.stack([entity_scores(logits, self.labels, *said, t) for t in both]))
        begin, end = corpus.word_rows[[out.first, out.last]]
        first, last = np.searchsorted(corpus.spans[0], [begin, end])
        gold = corpus.spans[:2, first:last] - begin
        self.silent.append(_outside(logits, *gold, self.temperature)[None])
        words = np.repeat(annotated, np.diff(offsets))
        right = (tags == corpus.word_tags[begin:end])[words]
        chances = _chances(logits[words], tags[words], self.temperature)
        self.bins = tuple(
            bins.plus(bin_confidences(chance, right)) for bins, chance in zip(self.bins, chances)
        )

    def found(self) -> tuple[np.ndarray, np.ndarray, tuple[ConfidenceBins, ConfidenceBins]]:
        """Of all processes."""
        bins = (reduce(ConfidenceBins.plus, parts) for parts in zip(*distributed.all_gather(self.bins)))
        return _joined(self.said), _joined(self.silent)[0], tuple(bins)


def class_bins(said: CorpusPredictions, corpus: EncodedCorpus) -> list[ConfidenceBins]:
    """Of the rows that have a class, at temperature 1 and at the model's own."""
    kept = corpus.row_classes != UNLABELLED
    right = (said.classes == corpus.row_classes)[kept]
    return [bin_confidences(chances[kept], right) for chances in said.class_chances]


def entity_bins(said: CorpusPredictions) -> list[ConfidenceBins]:
    """Of the entities that were said in annotated rows: right is exactly right."""
    return [bin_confidences(chances, said.matches.right) for chances in said.entity_chances]


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Parts (k, n) of this process, and of all processes → one array (k, N)."""
    return distributed.concatenate(np.concatenate(parts, 1).T).T


def _chances(logits: np.ndarray, ids: np.ndarray, temperature: float) -> np.ndarray:
    """Logits (n, K) → the probabilities (2, n) of these ids, at temperature 1 and at the one given."""
    rows = np.arange(len(ids))
    return np.stack([softmax(logits / np.float32(t))[rows, ids] for t in (1.0, temperature)])


def _outside(logits: np.ndarray, starts: np.ndarray, ends: np.ndarray, temperature: float) -> np.ndarray:
    """Word logits (W, K), spans (E,) → the mean probability of O over each one's words (E,)."""
    lengths = ends - starts
    words = concatenated_ranges(starts, lengths)
    chances = softmax(logits[words] / np.float32(temperature))[:, 0].astype(np.float64)
    return np.add.reduceat(chances, np.cumsum(lengths) - lengths) / lengths if len(starts) else np.zeros(0)
