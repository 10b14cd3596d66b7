"""The prediction for one text: its class, entities, words and embedding."""

from typing import Any, NamedTuple

import numpy as np


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
    model never learned that task; `embedding` (D,) and `words` are None unless they were requested."""

    text: str
    label: str | None
    probabilities: dict[str, float] | None
    entities: list[Entity] | None
    embedding: np.ndarray | None = None
    words: list[Word] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON row, without the words: plain types, probabilities rounded to six digits."""
        probabilities, entities = self.probabilities, self.entities
        row: dict[str, Any] = {
            "text": self.text,
            "label": self.label,
            "probabilities": probabilities and {name: round(p, 6) for name, p in probabilities.items()},
            "entities": None
            if entities is None
            else [{**e._asdict(), "score": round(e.score, 6)} for e in entities],
        }
        return row if self.embedding is None else {**row, "embedding": self.embedding.tolist()}
