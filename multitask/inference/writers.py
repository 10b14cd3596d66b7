"""Render predictions as bytes in the format that the name of the output file asks for."""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from multitask.common.errors import InputError, require_packages
from multitask.data.formats.columns import conll_line
from multitask.data.formats.files import CONLL, JSON_LINES
from multitask.data.labels import LabelSpace, Span, spans_to_tags
from multitask.data.rows import BadRow
from multitask.data.texts import Row, UnreadableRow
from multitask.inference.conversion import Convert, write_json_array, write_parquet
from multitask.inference.predictions import Prediction

LABEL_STUDIO, PARQUET = ".labelstudio.json", ".parquet"
_CSV = ("text", "label", "probability", "entities", "error")
_SPLITS_LINES = re.compile(r"[\t\r\n]")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what a spreadsheet takes for the beginning of one

# A row and its prediction, which is None if and only if the row is unreadable → the bytes to write.
Render = Callable[[Row, Prediction | None], bytes]


class OutputFormat(NamedTuple):
    """How an output file is written: its header, then each row as bytes and, if `convert` is given, that
    content converted to the file itself when all rows are there."""

    suffix: str
    head: bytes
    render: Render
    convert: Convert | None = None


def output_format(path: str, model: str = "", spreadsheet: bool = False) -> OutputFormat:
    """The format for a file name.

    Args:
        path: the file.
        model: the folder of the model, which Label Studio shows.
        spreadsheet: put ' before each text of a CSV file that a spreadsheet would take for a formula.

    Raises InputError for an unknown extension, or if a package for the format is not installed."""
    if path.lower().endswith(LABEL_STUDIO):
        render = partial(_label_studio_task, model_name(model))
        return OutputFormat(LABEL_STUDIO, b"", render, write_json_array)
    suffix = Path(path).suffix.lower()
    if suffix in JSON_LINES:
        return OutputFormat(suffix, b"", json_line)
    if suffix == ".csv":
        return OutputFormat(suffix, _table_row(_CSV), partial(_csv_row, spreadsheet))
    if suffix in CONLL:
        return OutputFormat(suffix, b"", _conll_sentence)
    if suffix == PARQUET:
        require_packages(["pyarrow"], path, "requirements-parquet.txt")
        return OutputFormat(suffix, b"", json_line, write_parquet)
    raise InputError(f"{path}: the extension must be .jsonl, .csv, .conll, .parquet or .labelstudio.json")


def check_labels_fit(path: str, labels: LabelSpace) -> None:
    """Raises InputError if the format of the file name can't hold one of the labels."""
    if Path(path).suffix.lower() not in CONLL:
        return
    for name in (*labels.classes, *labels.types):
        if _SPLITS_LINES.search(name) or name != name.strip():
            raise InputError(f"{path}: the label {name!r} does not fit into a column; write .jsonl or .csv")


def json_line(row: Row, prediction: Prediction | None) -> bytes:
    """The row as one line of JSON, with the keys of `row_fields`."""
    return json_bytes(row_fields(row, prediction))


def row_fields(row: Row, prediction: Prediction | None) -> dict[str, Any]:
    """The keys of a row of output; an unreadable row has the key `error`, and None for all other keys."""
    if isinstance(row, UnreadableRow):
        empty = dict.fromkeys(Prediction("", None, None, None).to_dict())
        return {**empty, "error": row.reason}
    assert prediction is not None
    return prediction.to_dict()


def soft_targets_line(labels: LabelSpace) -> Render:
    """Render a row as one line of JSON that a student can learn from: its text and words, and the model's
    probabilities, of each class and of each word's tags. An unreadable row has the key `error`.

    Six significant digits: a temperature makes small probabilities count."""
    tags = labels.tags

    def render(row: Row, prediction: Prediction | None) -> bytes:
        if isinstance(row, UnreadableRow):
            return json_bytes({"text": None, "error": row.reason})
        assert prediction is not None
        fields: dict[str, Any] = {"text": prediction.text, "tokens": row.words}
        if prediction.probabilities:
            fields["probabilities"] = _significant(prediction.probabilities.items())
        if prediction.tag_probabilities is not None:
            of_words = prediction.tag_probabilities.tolist()
            fields["tag_probabilities"] = [_significant(zip(tags, word)) for word in of_words]
        return json_bytes(fields)

    return render


def _significant(probabilities: Iterable[tuple[str, float]]) -> dict[str, float]:
    return {name: float(f"{p:.6g}") for name, p in probabilities if p > 0}


def _label_studio_task(model: str, row: Row, prediction: Prediction | None) -> bytes:
    """A task with its prediction for Label Studio; an unreadable row has `error` beside the text."""
    if isinstance(row, UnreadableRow):
        return json_bytes({"data": {"text": "", "error": row.reason}, "predictions": []})
    assert prediction is not None
    predictions = [label_studio_prediction(model, prediction)]
    return json_bytes({"data": {"text": prediction.text}, "predictions": predictions})


def label_studio_prediction(version: str, prediction: Prediction) -> dict[str, Any]:
    """A prediction of a task as Label Studio imports it; `version` is its model version. A
    score that is NaN is left out.

    Label Studio counts offsets in code points, as Python does. (Versions before 1.5 counted UTF-16 units.)"""
    fields, names = prediction.to_dict(), {"from_name": "class", "to_name": "text", "type": "choices"}
    result: list[dict[str, Any]] = []
    if (label := prediction.label) is not None:
        score = {"score": fields["probabilities"][label]} if fields["probabilities"] else {}
        result.append({"id": "class", **names, "value": {"choices": [label]}, **score})
    names = {"from_name": "label", "to_name": "text", "type": "labels"}
    for number, entity in enumerate(fields["entities"] or (), 1):
        value = {**{key: entity[key] for key in ("start", "end", "text")}, "labels": [entity["label"]]}
        score = {} if math.isnan(entity["score"]) else {"score": entity["score"]}
        result.append({"id": f"entity {number}", **names, "value": value, **score})
    # sorted by the lowest score, the tasks that a person should see first come first
    scores = [one["score"] for one in result if "score" in one]
    if label is None and fields["probabilities"]:  # unsure of it
        scores.append(max(fields["probabilities"].values()))
    lowest = {"score": min(scores)} if scores else {}
    return {"model_version": version, **lowest, "result": result}


def model_name(folder: str) -> str:
    """The name of the run that saved a model, or of the folder of an export."""
    path = Path(folder).resolve()  # runs/latest is a link
    return path.parent.name if path.name == "model" else path.name


_to_json = json.JSONEncoder(ensure_ascii=False).encode  # dumps would make an encoder for every row


def json_bytes(value: dict) -> bytes:
    """A JSON object as one line of UTF-8."""
    return _to_json(value).encode() + b"\n"


def _csv_row(spreadsheet: bool, row: Row, prediction: Prediction | None) -> bytes:
    def field(text: str) -> str:
        return f"'{text}" if spreadsheet and text.startswith(_FORMULA) else text

    if isinstance(row, UnreadableRow):
        return _table_row(("", "", "", "", field(row.reason)))
    assert prediction is not None
    fields, label = prediction.to_dict(), prediction.label
    probability = "" if label is None else fields["probabilities"][label]
    entities = "" if prediction.entities is None else json.dumps(fields["entities"], ensure_ascii=False)
    return _table_row((field(prediction.text), field(label or ""), probability, entities, ""))


def _table_row(fields: tuple) -> bytes:
    text = io.StringIO()
    # the csv module quotes a field that holds a character of the line terminator: \r and \n must be quoted
    csv.writer(text, lineterminator="\r\n").writerow(fields)
    return text.getvalue().removesuffix("\r\n").encode() + b"\n"


def _conll_sentence(row: Row, prediction: Prediction | None) -> bytes:
    if isinstance(row, UnreadableRow):
        return _conll_error(row.reason)
    assert prediction is not None
    if not row.words:
        return b"# text =\n\n"  # a comment keeps the place of a row without words
    offsets = row.offsets or []
    starts = {start: word for word, (start, _) in enumerate(offsets)}
    ends = {end: word for word, (_, end) in enumerate(offsets, 1)}
    tags: list[str | None] = [None] * len(row.words)
    if prediction.entities is not None:
        spans = [Span(starts[e.start], ends[e.end], e.label) for e in prediction.entities]
        tags = [*spans_to_tags(spans, len(row.words), "BIO")]
    try:
        lines = [conll_line(word, tag) for word, tag in zip(row.words, tags)]
    except BadRow as reason:
        return _conll_error(str(reason))
    label = [] if prediction.label is None else [f"# label = {prediction.label}"]
    return "".join(f"{line}\n" for line in [*label, *lines, ""]).encode()


def _conll_error(reason: str) -> bytes:
    return f"# error = {' '.join(reason.split())}\n\n".encode()
