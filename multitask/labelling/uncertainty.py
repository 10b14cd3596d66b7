"""How unsure a model is of texts: the entropy of their classes and of their words' tags."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from multitask.common.errors import InputError
from multitask.data.corpus import EncodedCorpus
from multitask.data.examples import Example, words_of_examples
from multitask.data.labels import LabelSpace
from multitask.inference.decoding import softmax
from multitask.inference.predictor import Predictor, TextEncoder
from multitask.inference.runner import BatchOutput, in_chains, in_chunks, one_ahead

CLASS, TAGS, BOTH = ORDERS = ("class", "tags", "both")


class Uncertainty(NamedTuple):
    """How unsure a model is of N texts, from 0 to 1; None for a task that it has not learned."""

    classes: np.ndarray | None  # (N,) as from `class_uncertainty`
    tags: np.ndarray | None  # (N,) as from `tag_uncertainty`

    def take(self, texts: list[int]) -> "Uncertainty":
        """That of some of the texts."""
        return Uncertainty(*(None if part is None else part[texts] for part in self))


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities (n, K) → their entropy (n,) as a share of the largest one, log K: from 0 to 1."""
    n, K = probabilities.shape
    logarithms = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    return np.maximum(-(probabilities * logarithms).sum(1) / np.log(max(K, 2)), 0.0)


def class_uncertainty(logits: np.ndarray, windows: np.ndarray, temperature: float) -> np.ndarray:
    """The entropy of each text's class (N,), from the mean of its windows' probabilities.

    That is the mean entropy of the windows plus their Jensen-Shannon divergence (Lin 1991, §4): a long text
    is uncertain too if its windows disagree, however sure each of them is.

    Args:
        logits: (V, C) of the windows.
        windows: (N + 1,) text i has the windows [windows[i], windows[i + 1]), at least one.
        temperature: divides the logits before the softmax."""
    probabilities = softmax(logits / np.float32(temperature)).astype(np.float64)
    return entropy(np.add.reduceat(probabilities, windows[:-1]) / np.diff(windows)[:, None])


def word_entropies(logits: np.ndarray, temperature: float) -> np.ndarray:
    """The entropy (W,) of the tag of each word, from logits (W, K) that `temperature` divides."""
    return entropy(softmax(logits / np.float32(temperature)).astype(np.float64))


def tag_uncertainty(logits: np.ndarray, words: np.ndarray, temperature: float) -> np.ndarray:
    """The entropy (N,) of the least sure word's tag in each text.

    Args:
        logits: (W, K) of the words.
        words: (N + 1,) text i has the words [words[i], words[i + 1]), at least one.
        temperature: divides the logits before the softmax."""
    return np.maximum.reduceat(word_entropies(logits, temperature), words[:-1])


def choose_order(wanted: str | None, labels: LabelSpace) -> str:
    """One of ORDERS. None: TAGS or, for a model without types, CLASS. A text whose words teach something
    mostly teaches its class too; BOTH measured no better (docs/labelling.md).

    Raises InputError for a task that the model has not learned."""
    chosen = wanted or (TAGS if labels.types else CLASS)
    if chosen != TAGS and not labels.classes:
        raise InputError(f"--by {chosen}: the model has no classes")
    if chosen != CLASS and not labels.types:
        raise InputError(f"--by {chosen}: the model has no types of entities")
    return chosen


def combine(uncertainty: Uncertainty, order: str) -> np.ndarray:
    """One number per text (N,), from 0 to 1: that of its class or of its tags, or the mean of its ranks in
    both; `order` is one of ORDERS."""
    found = {CLASS: uncertainty.classes, TAGS: uncertainty.tags}
    parts = [part for name, part in found.items() if order in (name, BOTH) and part is not None]
    return parts[0] if order != BOTH else np.mean([_ranks(part) for part in parts], axis=0)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Values (N,) → the share (N,) of them that are at most as large, from 1 / N to 1."""
    return np.searchsorted(np.sort(values), values, side="right") / len(values)


def measure(
    predictor: Predictor, rows: Iterable[Example]
) -> Iterator[tuple[list[Example], list[int], Uncertainty]]:
    """Yield rows that have words in chunks, each with the rows' keys and uncertainty."""

    def begin(part: list[Example], corpus: EncodedCorpus) -> Callable[[], tuple]:
        finish = predictor.runner.start(corpus, 0, len(corpus.window_start))
        return lambda: (part, row_keys(corpus), uncertainty(finish(), corpus, predictor))

    with predictor.runner.ready():
        yield from one_ahead(begin(*chunk) for chunk in encoded(predictor, rows))


def encoded(predictor: Predictor, rows: Iterable[Example]) -> Iterator[tuple[list[Example], EncodedCorpus]]:
    """Yield rows in chunks, each with its corpus."""
    encode = TextEncoder(predictor.tokenizer, predictor.config)
    for part in in_chunks(rows, lambda row: len(row.words)):
        yield part, encode(words_of_examples(part))


def uncertainty(out: BatchOutput, corpus: EncodedCorpus, predictor: Predictor) -> Uncertainty:
    """The uncertainty of all rows of a corpus, from a model's outputs for all its windows."""
    labels, config = predictor.labels, predictor.config
    out = in_chains(predictor.runner, out, corpus.word_rows)
    classes = tags = None
    if labels.classes and out.sentence_logits is not None:
        classes = class_uncertainty(out.sentence_logits, corpus.window_rows, config.temperature_task_a)
    if labels.types and out.word_logits is not None:
        tags = tag_uncertainty(out.word_logits, corpus.word_rows, config.temperature_task_b)
    return Uncertainty(classes, tags)


def row_keys(corpus: EncodedCorpus) -> list[int]:
    """A number for each row, equal for rows of equal subwords: a model can't tell these apart."""
    ends = np.append(corpus.word_first, len(corpus.ids))[corpus.word_rows].tolist()
    parts = (corpus.ids[first:last] for first, last in zip(ends, ends[1:]))
    return [int.from_bytes(hashlib.blake2b(part.tobytes(), digest_size=8).digest()) for part in parts]
