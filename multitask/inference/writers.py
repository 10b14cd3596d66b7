"""Render predictions as bytes: JSON Lines, CSV or CoNLL columns, chosen by the name of the output file."""

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

from multitask.common.errors import InputError
from multitask.data.formats.columns import conll_line
from multitask.data.formats.files import CONLL, JSON_LINES
from multitask.data.labels import LabelSpace, Span, spans_to_tags
from multitask.data.rows import BadRow
from multitask.data.texts import Row, UnreadableRow
from multitask.inference.predictions import Prediction

_CSV = ("text", "label", "probability", "entities", "error")
_SPLITS_LINES = re.compile(r"[\t\r\n]")

# A row and its prediction, which is None if and only if the row is unreadable → the bytes to write.
Render = Callable[[Row, Prediction | None], bytes]


def output_format(path: str) -> tuple[bytes, Render]:
    """The header and the row renderer for a file name. Raises InputError for an unknown extension."""
    suffix = Path(path).suffix.lower()
    if suffix in JSON_LINES:
        return b"", json_line
    if suffix == ".csv":
        return _table_row(_CSV), _csv_row
    if suffix in CONLL:
        return b"", _conll_sentence
    raise InputError(f"{path}: the extension must be .jsonl, .csv or .conll")


def check_labels_fit(path: str, labels: LabelSpace) -> None:
    """Raises InputError if the format of the file name can't hold one of the labels."""
    if Path(path).suffix.lower() not in CONLL:
        return
    for name in (*labels.classes, *labels.types):
        if _SPLITS_LINES.search(name) or name != name.strip():
            raise InputError(f"{path}: the label {name!r} does not fit into a column; write .jsonl or .csv")


def json_line(row: Row, prediction: Prediction | None) -> bytes:
    """The row as one line of JSON; an unreadable row has the key `error`, and null for all other keys."""
    if isinstance(row, UnreadableRow):
        empty = dict.fromkeys(Prediction("", None, None, None).to_dict())
        return json.dumps({**empty, "error": row.reason}, ensure_ascii=False).encode() + b"\n"
    assert prediction is not None
    return json.dumps(prediction.to_dict(), ensure_ascii=False).encode() + b"\n"


def _csv_row(row: Row, prediction: Prediction | None) -> bytes:
    if isinstance(row, UnreadableRow):
        return _table_row(("", "", "", "", row.reason))
    assert prediction is not None
    fields, label = prediction.to_dict(), prediction.label
    probability = "" if label is None else fields["probabilities"][label]
    entities = "" if prediction.entities is None else json.dumps(fields["entities"], ensure_ascii=False)
    return _table_row((prediction.text, label or "", probability, entities, ""))


def _table_row(fields: tuple) -> bytes:
    text = io.StringIO()
    # the csv module quotes a field that holds a character of the line terminator: \r and \n must be quoted
    csv.writer(text, lineterminator="\r\n").writerow(fields)
    return text.getvalue().removesuffix("\r\n").encode() + b"\n"


def _conll_sentence(row: Row, prediction: Prediction | None) -> bytes:
    if isinstance(row, UnreadableRow):
        return _conll_error(row.reason)
    assert prediction is not None
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
