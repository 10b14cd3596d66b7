"""Results that the page has shown, stored for a new threshold, a comparison and the downloads."""

import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from multitask.data.labels import LabelSpace
from multitask.data.texts import Row
from multitask.inference.predictions import Entity, Prediction
from multitask.inference.writers import output_format

_MAX_CHARACTERS = 4_000_000  # of all stored results; with the words' tags, a character takes some 50 bytes
_ROW_CHARACTERS = 100  # what the rest of a row counts


@dataclass(frozen=True)
class ModelPredictions:
    """One model's Prediction for each row; None where the row is an UnreadableRow, which holds the reason."""

    model: str
    labels: LabelSpace
    rows: Sequence[Row]
    predictions: Sequence[Prediction | None]


@dataclass(frozen=True)
class Result:
    """The predictions of one or two models for the same rows."""

    models: Sequence[ModelPredictions]
    file_name: str | None = None  # None for a typed text
    neighbours_html: str = ""  # the nearest training sentences
    key: str = field(default_factory=lambda: secrets.token_urlsafe(16))  # nobody can guess another's key

    @property
    def weight(self) -> int:
        """About how many characters the result holds."""
        first = self.models[0].predictions
        return len(self.models) * sum(_ROW_CHARACTERS + len(each.text if each else "") for each in first)


class ResultStore:
    """The latest results. The oldest are dropped once all together weigh more than `limit`; the newest always
    stays."""

    def __init__(self, limit: int = _MAX_CHARACTERS):
        self.limit, self._results = limit, OrderedDict[str, Result]()

    def add(self, result: Result) -> None:
        self._results[result.key] = result
        total = sum(stored.weight for stored in self._results.values())
        while total > self.limit and len(self._results) > 1:
            _, oldest = self._results.popitem(last=False)
            total -= oldest.weight

    def get(self, key: str) -> Result | None:
        """The result, which then counts as the newest; None where it was dropped."""
        if key in self._results:
            self._results.move_to_end(key)
        return self._results.get(key)


def above_threshold(prediction: Prediction, threshold: float) -> Prediction:
    """The prediction without entities whose score is below `threshold`."""
    if not prediction.entities:
        return prediction
    return prediction._replace(entities=[each for each in prediction.entities if each.score >= threshold])


def entities_only_in(one: Prediction, other: Prediction) -> list[Entity]:
    """The entities of `one` that `other` lacks: same characters and same type count as the same entity."""
    others = {entity[:4] for entity in other.entities or ()}
    return [entity for entity in one.entities or () if entity[:4] not in others]


def differ(one: Prediction, other: Prediction) -> bool:
    """Whether the class or the entities differ; scores do not count."""
    return one.label != other.label or bool(entities_only_in(one, other) or entities_only_in(other, one))


def render_download(result: Result, number: int, name: str, threshold: float) -> bytes:
    """The predictions of model `number` as a file called `name`: as `task_5.py predict --output` writes them,
    but without entities below `threshold`."""
    head, render = output_format(name)
    model = result.models[number]
    rows = zip(model.rows, model.predictions)
    return head + b"".join(render(row, each and above_threshold(each, threshold)) for row, each in rows)
