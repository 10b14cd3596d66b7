"""The prediction for one text: its class, entities, words and embedding."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np

from multitask.data.labels import LabelSpace
from multitask.data.words import TextWords
from multitask.inference.decoding import DecodedRows, entity_scores, softmax

T = TypeVar("T")


@contextmanager
def collection_paused() -> Iterator[None]:
    """In this block Python does not look for reference cycles. Predictions have none, but there are so many
    of them that looking took a third of the time outside the model."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Entity(NamedTuple):
    """The entity text[start:end]; `score` is the mean probability of its type over its words."""

    start: int
    end: int
    text: str
    label: str
    score: float


class Word(NamedTuple):
    """The word text[start:end] and its tag in the best tag sequence; `score` is the tag's probability."""

    start: int
    end: int
    tag: str
    score: float


class Prediction(NamedTuple):
    """The prediction for one text. `label` and `probabilities`, or `entities` and `words`, are None if the
    model never learned that task; `embedding` (D,), `words` and `tag_probabilities` (words, K), the model's
    probabilities of each word's tags, are None unless they were requested.

    A blank text, which has no words, has no label, no probabilities and an empty list of entities. A label
    that is None beside probabilities means "I don't know": see `Predictor.answer_only_if`."""

    text: str
    label: str | None
    probabilities: dict[str, float] | None
    entities: list[Entity] | None
    embedding: np.ndarray | None = None
    words: list[Word] | None = None
    tag_probabilities: np.ndarray | None = None

    def with_text(self, text: str) -> "Prediction":
        """The prediction for a text of the same length."""
        if text == self.text:
            return self
        entities = self.entities and [e._replace(text=text[e.start : e.end]) for e in self.entities]
        return self._replace(text=text, entities=entities)

    def without_answers(self) -> "Prediction":
        """The prediction for a blank text."""
        entities: list[Entity] | None = None if self.entities is None else []
        return self._replace(label=None, probabilities=None, entities=entities)

    def if_confident(self, class_probability: float, entity_score: float) -> "Prediction":
        """The prediction without a label whose probability is lower, and without entities whose score is
        lower; probabilities and words stay."""
        label, entities = self.label, self.entities
        if label is not None and self.probabilities and self.probabilities[label] < class_probability:
            label = None
        if entities:
            entities = [entity for entity in entities if entity.score >= entity_score]
        return self._replace(label=label, entities=entities)

    def to_dict(self) -> dict[str, Any]:
        """The JSON row, without the words: plain types, probabilities rounded to six digits."""
        probabilities, entities = self.probabilities, self.entities
        row: dict[str, Any] = {
            "text": self.text,
            "label": self.label,
            "probabilities": probabilities and {name: round(p, 6) for name, p in probabilities.items()},
            "entities": entities
            and [
                {"start": start, "end": end, "text": text, "label": label, "score": round(score, 6)}
                for start, end, text, label, score in entities
            ],
        }
        if self.embedding is not None:
            row["embedding"] = self.embedding.tolist()
        return row


def make_predictions(
    rows: DecodedRows,
    texts: Sequence[str],
    words: TextWords,
    labels: LabelSpace,
    config: Any,
    embeddings: bool = False,
    tagged_words: bool = False,
    tag_probabilities: bool = False,
) -> list[Prediction]:
    """Decoded rows → a Prediction for each of their texts, whose words are `words`.

    Args:
        config: of the model, with the temperatures of both tasks.
        embeddings, tagged_words, tag_probabilities: whether to add each text's embedding, each word's tag and
            score, and the probabilities of all of its tags."""
    absent: list[Any] = [None] * len(texts)
    classes = probabilities = entities = tagged = of_tags = absent
    if rows.classes is not None and rows.sentence_logits is not None:
        names = labels.classes
        classes = [names[i] for i in rows.classes.tolist()]
        scores = softmax(rows.sentence_logits / np.float32(config.temperature_task_a)).tolist()
        probabilities = [dict(zip(names, row)) for row in scores]
    if rows.tags is not None and rows.word_logits is not None:
        temperature = config.temperature_task_b
        entities = _entities(rows.tags, rows.word_logits, texts, words, labels, temperature)
        if tagged_words:
            tagged = _tagged_words(rows.tags, rows.word_logits, words, labels, temperature)
        if tag_probabilities:
            of_tags = np.split(softmax(rows.word_logits / np.float32(temperature)), words.rows[1:-1])
    vectors = rows.embeddings if embeddings else absent
    fields = texts, classes, probabilities, entities, vectors, tagged, of_tags
    predictions = list(map(Prediction, *fields))
    for blank in np.flatnonzero(np.diff(words.rows) == 0).tolist():
        predictions[blank] = predictions[blank].without_answers()
    return predictions


def _entities(
    tags: np.ndarray,
    logits: np.ndarray,
    texts: Sequence[str],
    words: TextWords,
    labels: LabelSpace,
    temperature: float,
) -> list[list[Entity]]:
    starts, ends, types = labels.find_spans(tags, words.rows)
    scores = entity_scores(logits, labels, starts, ends, types, temperature)
    owners = np.searchsorted(words.rows, starts, side="right") - 1
    spans = owners, words.starts[starts], words.ends[ends - 1], types
    rows, begins, stops, type_ids = map(np.ndarray.tolist, spans)
    found = [texts[row][begin:stop] for row, begin, stop in zip(rows, begins, stops)]
    names = [labels.types[i] for i in type_ids]
    entities = list(map(Entity, begins, stops, found, names, scores.tolist()))
    return _split(entities, np.searchsorted(owners, np.arange(len(texts) + 1)))


def _tagged_words(
    tags: np.ndarray, logits: np.ndarray, words: TextWords, labels: LabelSpace, temperature: float
) -> list[list[Word]]:
    scores = softmax(logits / np.float32(temperature))[np.arange(len(tags)), tags].tolist()
    names = [labels.tags[i] for i in tags.tolist()]
    tagged = list(map(Word, words.starts.tolist(), words.ends.tolist(), names, scores))
    return _split(tagged, words.rows)


def _split(items: list[T], offsets: np.ndarray) -> list[list[T]]:
    """Items of N rows, one after another, and the rows' offsets (N + 1,) → the items of each row."""
    ends = offsets.tolist()
    return [items[first:last] for first, last in zip(ends, ends[1:])]
