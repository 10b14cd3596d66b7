"""A trained model on texts: one pass gives the class, the entities and the embedding."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer

from multitask import processes
from multitask.batching import by_tokens, collate, word_positions
from multitask.encoding import EncodedCorpus, encode
from multitask.evaluation import Scores, score
from multitask.features import Features
from multitask.labels import LabelSpace
from multitask.rows import Example, text_example
from multitask.settings import TASKS

_CHUNK = 4096  # rows whose logits are held at once
_TOKENS = 4096  # of a batch, padding counted


class Entity(NamedTuple):
    """text[start:end] is the entity; score is the mean probability of its type over its words."""

    start: int
    end: int
    text: str
    label: str
    score: float


class Prediction(NamedTuple):
    """What a model says of a text. label and probabilities, or entities, are None where it never learned that
    task; embedding (D,) is None unless it was asked for."""

    text: str
    label: str | None
    probabilities: dict[str, float] | None
    entities: list[Entity] | None
    embedding: np.ndarray | None = None

    def to_dict(self) -> dict:
        """The row that is written: plain types, probabilities to six digits."""
        chances, entities = self.probabilities, self.entities
        row = {
            "text": self.text,
            "label": self.label,
            "probabilities": chances and {name: round(chance, 6) for name, chance in chances.items()},
            "entities": entities and [{**e._asdict(), "score": round(e.score, 6)} for e in entities],
        }
        return row if self.embedding is None else {**row, "embedding": self.embedding.tolist()}


class Outputs(NamedTuple):
    """The model's outputs over rows [first, last) of a corpus, as float32 arrays."""

    first: int
    last: int
    sentence_logits: np.ndarray | None  # (rows, C); None from a model without heads
    word_logits: np.ndarray | None  # (words of these rows, K)
    embeddings: np.ndarray  # (rows, D)


def outputs(
    model,
    corpus: EncodedCorpus,
    progress: Callable[[int], object] | None = None,
    features: Features | None = None,
    rows: tuple[int, int] | None = None,
) -> Iterator[Outputs]:
    """Run a SentenceTransformer or MultiTaskTransformer over a corpus: chunks of rows, windows by length.

    A text of several windows gets the mean of their logits and embeddings; every word is read from the window
    that it belongs to. Calls `progress` with the number of rows done since the last call. `features` are the
    output of the encoder's lowest layers; `rows` [first, last) are the only ones read."""
    was_training = model.training
    model.eval()
    begin, end = rows or (0, len(corpus))
    try:
        for first in range(begin, end, _CHUNK):
            last = min(first + _CHUNK, end)
            yield _chunk(model, corpus, first, last, features)
            if progress:
                progress(last - first)
    finally:
        model.train(was_training)


@torch.inference_mode()
def _chunk(model, corpus: EncodedCorpus, first: int, last: int, features: Features | None) -> Outputs:
    windows = np.arange(corpus.window_rows[first], corpus.window_rows[last])
    words = int(corpus.word_rows[first]), int(corpus.word_rows[last])
    lengths = corpus.window_lengths[windows]
    order = windows[np.argsort(-lengths, kind="stable")]
    has_heads = hasattr(model, "heads")
    per_window: list[tuple[np.ndarray, ...]] = []
    word_logits = np.zeros((words[1] - words[0], model.config.num_labels if has_heads else 0), np.float32)
    for batch in by_tokens(order, corpus.window_lengths, _TOKENS):
        inputs = collate(corpus, batch)
        ids, mask = (inputs[name].to(model.device) for name in ("input_ids", "attention_mask"))
        if features is None:
            hidden = model.encode(ids, mask)
        else:
            hidden = model.encode(None, mask, features.batch(batch), features.depth)
        vectors = [model.pool(hidden, mask)]
        if has_heads:
            sentence_logits, token_logits = model.heads(hidden, mask)
            row, position, word = word_positions(corpus, batch)
            word_logits[word - words[0]] = token_logits.float().cpu().numpy()[row, position]
            vectors.append(sentence_logits)
        per_window.append(tuple(vector.float().cpu().numpy() for vector in vectors))
    by_window = [np.concatenate(parts)[np.argsort(order)] for parts in zip(*per_window)]
    starts = corpus.window_rows[first:last] - windows[0]
    counts = np.diff(corpus.window_rows[first : last + 1])[:, None]
    means = [np.add.reduceat(values, starts) / counts.astype(np.float32) for values in by_window]
    return Outputs(first, last, means[1] if has_heads else None, word_logits if has_heads else None, means[0])


def predict_corpus(
    model,
    corpus: EncodedCorpus,
    labels: LabelSpace,
    progress: Callable[[int], object] | None = None,
    features: Features | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Class ids (N,) and tag ids (W,) that the model gives a corpus; tags are valid under the scheme.

    Several processes share the rows, each of which is read once, and all of them get the whole."""
    classes, tags = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
    for out in outputs(model, corpus, progress, features, processes.share(len(corpus))):
        offsets = corpus.word_rows[out.first : out.last + 1] - corpus.word_rows[out.first]
        classes.append(out.sentence_logits.argmax(1))
        tags.append(labels.decode(out.word_logits, offsets))
    return processes.joined(np.concatenate(classes)), processes.joined(np.concatenate(tags))


def evaluate(
    model,
    corpus: EncodedCorpus,
    labels: LabelSpace,
    tasks: Sequence[str] = TASKS,
    progress: Callable[[int], object] | None = None,
    features: Features | None = None,
) -> Scores:
    """Scores of the named tasks, of those that the model has names for."""
    classes, tags = predict_corpus(model, corpus, labels, progress, features)
    return score(
        corpus,
        labels,
        classes if "task_a" in tasks and labels.classes else None,
        tags if "task_b" in tasks and labels.types else None,
    )


def embed(
    model, tokenizer: Tokenizer, texts: Sequence[str], progress: Callable[[int], object] | None = None
) -> np.ndarray:
    """Texts → embeddings (N, D), float32, pooled as the model's configuration says."""
    config = model.config
    examples = list(map(text_example, texts))
    corpus = encode(examples, tokenizer, LabelSpace((), ()), config.max_length, config.stride)
    parts = [out.embeddings for out in outputs(model, corpus, progress)]
    return np.concatenate(parts) if parts else np.zeros((0, config.hidden_size), np.float32)


class Predictor:
    """A model, its tokenizer and its labels: texts in, Predictions out.

    >>> Predictor(model, tokenizer, labels).predict(["Marit Solheim won in Oslo."])[0].entities
    """

    def __init__(self, model, tokenizer: Tokenizer, labels: LabelSpace):
        self.model, self.tokenizer, self.labels = model, tokenizer, labels

    def predict(
        self,
        texts: Sequence[str],
        embeddings: bool = False,
        progress: Callable[[int], object] | None = None,
    ) -> list[Prediction]:
        """One Prediction a text, in order; an empty text has one too."""
        config = self.model.config
        examples = [text_example(text) for text in texts]
        corpus = encode(examples, self.tokenizer, self.labels, config.max_length, config.stride)
        return [
            prediction
            for out in outputs(self.model, corpus, progress)
            for prediction in self._decode(out, corpus, examples[out.first : out.last], embeddings)
        ]

    def _decode(
        self, out: Outputs, corpus: EncodedCorpus, examples: list[Example], embeddings: bool
    ) -> Iterator[Prediction]:
        offsets = corpus.word_rows[out.first : out.last + 1] - corpus.word_rows[out.first]
        classes = self.labels.classes
        probabilities = softmax(out.sentence_logits)
        entities: list[list[Entity]] = [[] for _ in examples]
        if self.labels.types:
            for row, entity in self._entities(out.word_logits, offsets, examples):
                entities[row].append(entity)
        for row, example in enumerate(examples):
            chances = dict(zip(classes, map(float, probabilities[row]))) if classes else None
            yield Prediction(
                example.text,
                classes[int(probabilities[row].argmax())] if classes else None,
                chances,
                entities[row] if self.labels.types else None,
                out.embeddings[row] if embeddings else None,
            )

    def _entities(
        self, logits: np.ndarray, offsets: np.ndarray, examples: list[Example]
    ) -> Iterator[tuple[int, Entity]]:
        tags = self.labels.decode(logits, offsets)
        starts, ends, types = self.labels.find_spans(tags, offsets)
        chances = softmax(logits)[:, 1:]
        if self.labels.scheme == "BIO":  # a type's probability is that of its two tags
            chances = chances.reshape(len(chances), len(self.labels.types), 2).sum(2)
        sums = np.concatenate([np.zeros((1, chances.shape[1])), np.cumsum(chances, 0, dtype=np.float64)])
        scores = (sums[ends, types] - sums[starts, types]) / (ends - starts)
        rows = np.searchsorted(offsets, starts, side="right") - 1
        for row, start, end, kind, chance in zip(rows, starts, ends, types, scores):
            text, words = examples[row].text, examples[row].offsets
            first, last = words[start - offsets[row]][0], words[end - 1 - offsets[row]][1]
            yield (
                int(row),
                Entity(first, last, text[first:last], self.labels.types[kind], float(min(chance, 1.0))),
            )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
