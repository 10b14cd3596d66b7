"""What a model says of a text."""

from typing import NamedTuple

import numpy as np


class Entity(NamedTuple):
    """text[start:end] is the entity; score is the mean probability of its type over its words."""

    start: int
    end: int
    text: str
    label: str
    score: float


class Word(NamedTuple):
    """text[start:end] is a word; score is the probability of its tag, which is that of the best sequence."""

    start: int
    end: int
    tag: str
    score: float


class Prediction(NamedTuple):
    """What a model says of a text. label and probabilities, or entities and words, are None where it never
    learned that task; embedding (D,) and words are None unless they were asked for."""

    text: str
    label: str | None
    probabilities: dict[str, float] | None
    entities: list[Entity] | None
    embedding: np.ndarray | None = None
    words: list[Word] | None = None

    def to_dict(self) -> dict:
        """The row that is written, without the words: plain types, probabilities to six digits."""
        chances, entities = self.probabilities, self.entities
        row = {
            "text": self.text,
            "label": self.label,
            "probabilities": chances and {name: round(chance, 6) for name, chance in chances.items()},
            "entities": entities and [{**e._asdict(), "score": round(e.score, 6)} for e in entities],
        }
        return row if self.embedding is None else {**row, "embedding": self.embedding.tolist()}
