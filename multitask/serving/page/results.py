"""Results that the page has shown, stored for the threshold, the comparison and the downloads."""

import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from multitask.data.labels import LabelSpace
from multitask.data.texts import Row
from multitask.inference.predictions import Entity, Prediction
from multitask.inference.writers import output_format

_MAX_CHARACTERS = 4_000_000  # of all stored results; with the words' tags, a character takes about 50 bytes
_ROW_CHARACTERS = 100  # added per row for what is not text


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
    file_name: str | None = None  # None for typed texts
    neighbours_html: str = ""  # the nearest training sentences
    key: str = field(default_factory=lambda: secrets.token_urlsafe(16))  # can't be guessed by other users

    @property
    def is_one_text(self) -> bool:
        """Whether it is one typed text, which is shown with its words; several lines are shown as rows."""
        return self.file_name is None and len(self.models[0].rows) == 1

    @property
    def weight(self) -> int:
        """An estimate of the result's size, in characters."""
        predictions = self.models[0].predictions
        return len(self.models) * sum(_ROW_CHARACTERS + len(p.text if p else "") for p in predictions)


class ResultStore:
    """The latest results: the oldest are dropped while all together weigh more than `limit`, but never the
    newest."""

    def __init__(self, limit: int = _MAX_CHARACTERS):
        self.limit, self._results = limit, OrderedDict[str, Result]()

    def add(self, result: Result) -> None:
        self._results[result.key] = result
        total = sum(stored.weight for stored in self._results.values())
        while total > self.limit and len(self._results) > 1:
            _, oldest = self._results.popitem(last=False)
            total -= oldest.weight

    def get(self, key: str) -> Result | None:
        """The result, which becomes the newest; None if it was dropped."""
        if key in self._results:
            self._results.move_to_end(key)
        return self._results.get(key)


def entities_only_in(one: Prediction, other: Prediction) -> list[Entity]:
    """The entities of `one` that `other` lacks. Entities are equal if offsets and type are."""
    others = {entity[:4] for entity in other.entities or ()}
    return [entity for entity in one.entities or () if entity[:4] not in others]


def differ(one: Prediction, other: Prediction) -> bool:
    """Whether the class or the entities differ; scores do not count."""
    return one.label != other.label or bool(entities_only_in(one, other) or entities_only_in(other, one))


def render_download(result: Result, number: int, name: str, threshold: float) -> bytes:
    """The predictions of model `number` as a file called `name`: as `task_5.py predict --output` writes them,
    but without entities below `threshold`, and CSV for a spreadsheet."""
    written, model = output_format(name, spreadsheet=True), result.models[number]
    rows = zip(model.rows, model.predictions)
    return written.head + b"".join(
        written.render(row, p and p.if_confident(0.0, threshold)) for row, p in rows
    )
