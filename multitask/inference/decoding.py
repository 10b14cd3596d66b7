"""Decode logits to classes, tags and scored entities: one loop for prediction and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import numpy as np

from multitask.common import distributed
from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import TASKS, LabelSpace, concatenated_ranges
from multitask.inference.runner import RowOutputs, Runner, run_model, runner_of


class DecodedRows(NamedTuple):
    """A model's predictions for rows [first, last) of a corpus. A task's fields are None if the model has
    no names for it, or if the task was not requested."""

    first: int
    last: int
    offsets: np.ndarray  # (rows + 1,) words of each row, counted from the first word of these rows
    embeddings: np.ndarray  # (rows, D)
    sentence_logits: np.ndarray | None  # (rows, C)
    classes: np.ndarray | None  # (rows,) ids
    word_logits: np.ndarray | None  # (words, K)
    tags: np.ndarray | None  # (words,) ids, valid under the tag scheme


def decode_corpus(
    runner: Runner,
    corpus: EncodedCorpus,
    labels: LabelSpace,
    tasks: Collection[str] = TASKS,
    progress: Callable[[int], object] | None = None,
    rows: tuple[int, int] | None = None,
) -> Iterator[DecodedRows]:
    """Run a model over a corpus, or over its `rows` [first, last), a chunk of rows at a time, in order.

    Calls `progress` with the number of rows done since the last call."""
    for out in run_model(runner, corpus, progress, rows):
        yield decode_rows(out, corpus, labels, tasks)


def decode_rows(
    out: RowOutputs, corpus: EncodedCorpus, labels: LabelSpace, tasks: Collection[str] = TASKS
) -> DecodedRows:
    """A model's outputs for rows of a corpus → its predictions."""
    offsets = corpus.word_rows[out.first : out.last + 1] - corpus.word_rows[out.first]
    sentence_logits = out.sentence_logits if labels.classes and "task_a" in tasks else None
    word_logits = out.word_logits if labels.types and "task_b" in tasks else None
    classes = None if sentence_logits is None else sentence_logits.argmax(1)
    tags = None if word_logits is None else labels.decode(word_logits, offsets)
    return DecodedRows(
        out.first, out.last, offsets, out.embeddings, sentence_logits, classes, word_logits, tags
    )


def predict_corpus(
    model: Any,
    corpus: EncodedCorpus,
    labels: LabelSpace,
    tasks: Collection[str] = TASKS,
    seen: Callable[[DecodedRows], object] | None = None,
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Class ids (N,) and tag ids (W,) that a model, or a Runner, predicts; None as in `DecodedRows`. Calls
    `seen` with the rows of this process.

    Several processes share the rows: each row is predicted once, and every process gets all results."""
    shared = distributed.share_of_rows(len(corpus))
    decoded = decode_corpus(runner_of(model), corpus, labels, tasks, rows=shared)
    parts = []
    for rows in decoded:
        parts.append((rows.classes, rows.tags))
        if seen:
            seen(rows)
    classes = [np.zeros(0, np.int64), *(part for part, _ in parts if part is not None)]
    tags = [np.zeros(0, np.int32), *(part for _, part in parts if part is not None)]
    return (
        distributed.concatenate(np.concatenate(classes)) if labels.classes and "task_a" in tasks else None,
        distributed.concatenate(np.concatenate(tags)) if labels.types and "task_b" in tasks else None,
    )


def entity_scores(
    logits: np.ndarray,
    labels: LabelSpace,
    starts: np.ndarray,
    ends: np.ndarray,
    types: np.ndarray,
    temperature: float,
) -> np.ndarray:
    """The mean probability of each entity's type over its words (E,); under BIO, of both tags of the type.

    Args:
        logits: (W, K) of the words.
        labels: the label space of the K tags.
        starts, ends, types: (E,) the entities, words [start, end) with type ids.
        temperature: divides the logits before the softmax."""
    if len(starts) == 0:
        return np.zeros(0)
    lengths = ends - starts
    probabilities = softmax(logits[concatenated_ranges(starts, lengths)] / np.float32(temperature))
    word, kind = np.arange(len(probabilities)), np.repeat(types, lengths)
    if labels.scheme == "BIO":
        of_type = probabilities[word, 1 + 2 * kind] + probabilities[word, 2 + 2 * kind]
    else:
        of_type = probabilities[word, 1 + kind]
    means = np.add.reduceat(of_type.astype(np.float64), np.cumsum(lengths) - lengths) / lengths
    return np.minimum(means, 1.0)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis, of the shape of the logits."""
    powers = logits - logits.max(-1, keepdims=True)
    np.exp(powers, out=powers)
    return np.divide(powers, powers.sum(-1, keepdims=True), out=powers)
