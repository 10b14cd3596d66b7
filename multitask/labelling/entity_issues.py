"""Annotated entities against those that a model predicts: the places where they differ."""

from typing import NamedTuple

import numpy as np

from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import LabelSpace, concatenated_ranges

MISSING, SPURIOUS, TYPE, BOUNDARY = "missing", "spurious", "type", "boundary"

SpanIds = tuple[int, int, int]  # first word, word after the last one, type id; words of the corpus


class EntityIssue(NamedTuple):
    """Entities that overlap each other and differ. `given` are those of the annotation, `suggested` those
    that the model predicts in their place; one of them may be empty."""

    row: int
    kind: str
    quality: float  # of the annotation, from 0 to 1: the lowest of its words whose type would change
    given: list[SpanIds]
    suggested: list[SpanIds]


def word_types(spans: np.ndarray, words: int) -> np.ndarray:
    """Entities, as starts, ends and type ids (3, E) → the type of each word (words,): 0 for O, else 1 + the
    type id."""
    found, (starts, ends, types) = np.zeros(words, np.int64), spans
    found[concatenated_ranges(starts, ends - starts)] = np.repeat(1 + types, ends - starts)
    return found


def entity_issues(
    corpus: EncodedCorpus, labels: LabelSpace, tags: np.ndarray, wrong: np.ndarray, quality: np.ndarray
) -> list[EntityIssue]:
    """The places where annotation and prediction differ in a word whose annotation is wrong.

    Args:
        corpus, labels: annotated rows, and the labels of the model.
        tags: (W,) predicted tag ids.
        wrong: (W,) whether the type that the annotation gives a word is wrong; False in other rows.
        quality: (W,) of that type, from 0 to 1."""
    predicted = np.stack(labels.find_spans(tags, corpus.word_rows))
    given = corpus.spans
    differs = word_types(given, len(tags)) != word_types(predicted, len(tags))
    issues = []
    for first, last in _groups(given, predicted):
        changed = differs[first:last]
        if not (changed & wrong[first:last]).any():
            continue
        own, other = (_within(spans, first, last) for spans in (given, predicted))
        row = int(np.searchsorted(corpus.word_rows, first, side="right")) - 1
        lowest = float(quality[first:last][changed].min())
        issues.append(EntityIssue(row, _kind(own, other), lowest, own, other))
    return issues


def _groups(given: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Entities (3, E) and (3, P) → the words [first, last) (G, 2) of each group of overlapping entities."""
    starts, ends, _ = np.concatenate([given, predicted], 1)
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order]) if len(order) else ends
    new = np.append(True, starts[1:] >= ends[:-1])[: len(starts)]
    last = np.append(np.flatnonzero(new)[1:] - 1, len(starts) - 1)[: new.sum()]
    return np.stack([starts[new], ends[last]], 1)


def _within(spans: np.ndarray, first: int, last: int) -> list[SpanIds]:
    """The entities (3, E), sorted, that lie in the words [first, last)."""
    begin, end = np.searchsorted(spans[0], [first, last])
    return [(int(start), int(stop), int(kind)) for start, stop, kind in spans[:, begin:end].T]


def _kind(given: list[SpanIds], suggested: list[SpanIds]) -> str:
    if not given:
        return MISSING
    if not suggested:
        return SPURIOUS
    same_words = [span[:2] for span in given] == [span[:2] for span in suggested]
    return TYPE if same_words else BOUNDARY
