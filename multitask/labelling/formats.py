"""Texts to label or to correct, as annotation tools import them."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multitask.common.atomic_files import atomic_file, check_writable
from multitask.common.errors import InputError
from multitask.data.labels import LabelSpace
from multitask.inference.predictions import Prediction
from multitask.inference.writers import json_bytes, label_studio_prediction

LABEL_STUDIO, DOCCANO, JSON_LINES = "label-studio", "doccano", "jsonl"


def choose_format(wanted: str | None, output: str | None) -> str:
    """The format of an output file, or of standard output (None). Without a wish, a name that ends in .json
    is Label Studio's, and all else is JSON Lines.

    Raises InputError if the file can't be written, or if its name does not fit."""
    is_json = output is not None and Path(output).suffix.lower() == ".json"
    chosen = wanted or (LABEL_STUDIO if is_json else JSON_LINES)
    if output is not None:
        suffix = ".json" if chosen == LABEL_STUDIO else ".jsonl"
        if Path(output).suffix.lower() != suffix:
            raise InputError(f"{output}: for --format {chosen} the name ends in {suffix}")
        check_writable(output)
    return chosen


def check_new(output: str | None) -> None:
    """Raises InputError for a file that exists: a person may have corrected its rows."""
    if output is not None and Path(output).exists():
        raise InputError(f"{output}: is there already, perhaps with corrections; write to another file")


def write_rows(rows: Sequence[dict[str, Any]], chosen: str, output: str | None) -> None:
    """Write rows to a file, which appears when it is complete, or to standard output (None): as a JSON array
    for Label Studio, else as JSON Lines."""
    content = b"".join(map(json_bytes, rows))
    if chosen == LABEL_STUDIO:
        content = b"[\n" + b",\n".join(json_bytes(row)[:-1] for row in rows) + b"\n]\n"
    if output is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    with atomic_file(output) as file:
        file.write(content)


def label_studio_task(
    text: str, predictions: Sequence[tuple[str, Prediction]], **data: Any
) -> dict[str, Any]:
    """A text with the predictions of named model versions, of which a person accepts one; `data` is shown in
    columns beside the text."""
    shown = [label_studio_prediction(version, prediction) for version, prediction in predictions]
    return {"data": {"text": text, **data}, "predictions": shown}


def doccano_row(prediction: Prediction, labels: LabelSpace, **metadata: Any) -> dict[str, Any]:
    """A text with a prediction as its annotation. doccano keeps `metadata` with the text.

    The keys are those of a project of the type that fits the model: "Intent Detection and Slot Filling" for
    classes and entities, "Text Classification" for classes, and "Sequence Labeling" for entities."""
    entities = [[entity.start, entity.end, entity.label] for entity in prediction.entities or ()]
    classes = [] if prediction.label is None else [prediction.label]
    if labels.classes and labels.types:
        return {"text": prediction.text, "entities": entities, "cats": classes, **metadata}
    return {"text": prediction.text, "label": classes if labels.classes else entities, **metadata}
