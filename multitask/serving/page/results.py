"""What the page has answered: kept for its threshold, its comparison and its downloads."""

import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from multitask.data.labels import LabelSpace
from multitask.data.texts import Row
from multitask.inference.predictions import Entity, Prediction
from multitask.inference.writers import output_format

_KEPT = 4_000_000  # characters of all results together; with its words' tags, one takes some 50 bytes
_ROW = 100  # characters that a row's other parts weigh


@dataclass(frozen=True)
class ModelAnswers:
    """One model's: a Prediction a row; None where the row, an Unreadable, says why there is none."""

    model: str
    labels: LabelSpace
    rows: Sequence[Row]
    said: Sequence[Prediction | None]


@dataclass(frozen=True)
class Result:
    """The answers of one model to some rows, or of two."""

    answers: Sequence[ModelAnswers]
    file: str | None = None  # its name; None for a text that was typed
    near: str = ""  # the training sentences near to it, as HTML
    key: str = field(default_factory=lambda: secrets.token_urlsafe(16))  # nobody finds another's

    @property
    def weight(self) -> int:
        """About how many characters it takes to keep it."""
        one = sum(_ROW + len(said.text if said else "") for said in self.answers[0].said)
        return one * len(self.answers)


class ResultStore:
    """The latest ones. The oldest are forgotten where all together weigh more than `most`, so that memory is
    bounded; the newest is always kept."""

    def __init__(self, most: int = _KEPT):
        self.most, self._kept = most, OrderedDict[str, Result]()

    def keep(self, result: Result) -> None:
        self._kept[result.key] = result
        total = sum(kept.weight for kept in self._kept.values())
        while total > self.most and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            total -= oldest.weight

    def get(self, key: str) -> Result | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)


def above(said: Prediction, least: float) -> Prediction:
    """The prediction without entities whose score is below `least`."""
    if not said.entities:
        return said
    return said._replace(entities=[entity for entity in said.entities if entity.score >= least])


def only_in(one: Prediction, other: Prediction) -> list[Entity]:
    """The entities that `one` has and `other` has not, at these characters and of this type."""
    others = {entity[:4] for entity in other.entities or ()}
    return [entity for entity in one.entities or () if entity[:4] not in others]


def differs(one: Prediction, other: Prediction) -> bool:
    return one.label != other.label or bool(only_in(one, other) or only_in(other, one))


def written(result: Result, number: int, name: str, least: float) -> bytes:
    """The file of that name with the answers of model `number`: as task_5.py predict --output writes it, but
    without entities below `least`."""
    head, render = output_format(name)
    answers = result.answers[number]
    rows = zip(answers.rows, answers.said)
    return head + b"".join(render(row, said and above(said, least)) for row, said in rows)
