"""HTML of the page's results and other parts, from the templates."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from multitask.common.html import Number, template_environment
from multitask.data.texts import Row, UnreadableRow
from multitask.inference.predictions import Entity, Prediction
from multitask.serving.page.colours import DARK, LIGHT, LINES, TYPES, looks_of
from multitask.serving.page.highlight import keep_lines, segments
from multitask.serving.page.results import ModelPredictions, Result, differ, entities_only_in

_MAX_ROWS = 200  # of a file; the downloads have all rows
_MAX_CLASSES = 8  # shown at once; a text's other classes are in a closed section

TEMPLATES = template_environment(Path(__file__).with_name("templates"))
TEMPLATES.globals["segments"] = segments
TEMPLATES.filters |= {"keep_lines": keep_lines, "score": "{:.3f}".format}


class Cell(NamedTuple):
    """A model's prediction for a row, or the reason why there is none."""

    prediction: Prediction | None
    reason: str
    alone: list[Entity]  # entities that the other model does not predict


class Pane(NamedTuple):
    """One model's part of a result, with counts over all its rows."""

    model: ModelPredictions
    looks: dict[str, str]  # CSS classes of each type
    readable: int  # rows with a prediction
    classes: list[tuple[str, int]]  # the most frequent ones
    unsure: int  # rows with probabilities but without a class
    entities: Counter[str]  # number of each type, without those below the threshold
    hidden: int  # entities below the threshold
    trained: bool  # whether the model was trained for entities


def view(result: Result, threshold: float) -> str:
    """HTML of the result, without the entities whose score is below `threshold`."""
    panes = [_pane(model, threshold) for model in result.models]
    columns = (
        [(row, p and p.if_confident(0.0, threshold)) for row, p in zip(model.rows, model.predictions)]
        for model in result.models
    )
    rows = list(zip(*columns))
    pairs = [tuple(prediction for _, prediction in row) for row in rows]
    compared = [pair for pair in pairs if len(pair) == 2 and None not in pair]
    stem = (result.file_name or "text").rsplit(".", 1)[0]
    return render(
        "result.html",
        result=result,
        panes=panes,
        rows=[_cells(row) for row in rows[:_MAX_ROWS]],
        total=len(rows),
        compared=len(compared),
        different=sum(differ(*pair) for pair in compared),
        threshold=threshold,
        query="" if threshold <= 0 else f"?least={threshold:g}",
        download=f"{stem}.predictions",
        bars=_MAX_CLASSES,
        word_rows=_word_rows,
    )


def colour_css() -> str:
    """The page's colours as CSS variables; the dark ones apply under gradio's class `dark`."""
    return render("colours.css", light=LIGHT, dark=DARK, types=TYPES, lines=LINES)


def render(name: str, **values: object) -> Markup:
    """A template of the page, filled in."""
    return Markup(TEMPLATES.get_template(name).render(values))


def _pane(model: ModelPredictions, threshold: float) -> Pane:
    readable = [prediction for prediction in model.predictions if prediction]
    entities = [entity for prediction in readable for entity in prediction.entities or ()]
    shown = Counter(entity.label for entity in entities if entity.score >= threshold)
    classes = Counter(p.label for p in readable if p.label is not None).most_common(_MAX_CLASSES)
    unsure = sum(p.label is None and bool(p.probabilities) for p in readable)
    trained, hidden = any(p.entities is not None for p in readable), len(entities) - shown.total()
    looks = looks_of(model.labels.types)
    return Pane(model, looks, len(readable), classes, unsure, shown, hidden, trained)


def _word_rows(prediction: Prediction) -> list[list[str]]:
    words = prediction.words or ()
    return [[prediction.text[w.start : w.end], w.tag, Number(f"{w.score:.3f}")] for w in words]


def _cells(row: Sequence[tuple[Row, Prediction | None]]) -> list[Cell]:
    cells = []
    for number, (source, prediction) in enumerate(row):
        other = row[1 - number][1] if len(row) == 2 else None
        reason = source.reason if isinstance(source, UnreadableRow) else ""
        alone = entities_only_in(prediction, other) if prediction and other else []
        cells.append(Cell(prediction, reason, alone))
    return cells
