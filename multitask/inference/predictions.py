"""The prediction for one text: its class, entities, words and embedding."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np


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
    model never learned that task; `embedding` (D,) and `words` are None unless they were requested.

    A blank text, which has no words, has no label, no probabilities and an empty list of entities. A label
    that is None beside probabilities means "I don't know": see `Predictor.answer_only_if`."""

    text: str
    label: str | None
    probabilities: dict[str, float] | None
    entities: list[Entity] | None
    embedding: np.ndarray | None = None
    words: list[Word] | None = None

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
        row: dict[str, Any] = self._asdict()
        del row["words"]
        if self.embedding is None:
            del row["embedding"]
        else:
            row["embedding"] = self.embedding.tolist()
        if self.probabilities is not None:
            row["probabilities"] = {name: round(p, 6) for name, p in self.probabilities.items()}
        if self.entities is not None:
            row["entities"] = [{**e._asdict(), "score": round(e.score, 6)} for e in self.entities]
        return row
