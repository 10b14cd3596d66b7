"""Predictions as bytes: JSON Lines, CSV or CoNLL columns, by the name of the file that they go to."""

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

from multitask.common.errors import InputError
from multitask.data.formats import CONLL, JSON_LINES, conll_line
from multitask.data.labels import LabelSpace, Span, spans_to_tags
from multitask.data.rows import BadRow
from multitask.data.texts import Row
from multitask.inference.predictions import Prediction

_CSV = ("text", "label", "probability", "entities", "error")
_SPLITS_LINES = re.compile(r"[\t\r\n]")

# A row and what is predicted of it, None for one that can't be read → its bytes.
Render = Callable[[Row, Prediction | None], bytes]


def output_format(path: str) -> tuple[bytes, Render]:
    """How a file of that name begins, and how a row is written to it. Raises InputError for other names."""
    suffix = Path(path).suffix.lower()
    if suffix in JSON_LINES:
        return b"", json_line
    if suffix == ".csv":
        return _table_row(_CSV), _csv_row
    if suffix in CONLL:
        return b"", _conll_sentence
    raise InputError(f"{path}: the name says what is written: .jsonl, .csv or .conll")


def check_labels_fit(path: str, labels: LabelSpace) -> None:
    """Raises InputError for labels that the format of that name can't hold."""
    if Path(path).suffix.lower() not in CONLL:
        return
    for name in (*labels.classes, *labels.types):
        if _SPLITS_LINES.search(name) or name != name.strip():
            raise InputError(f"{path}: the label {name!r} does not fit into a column; write .jsonl or .csv")


def json_line(row: Row, said: Prediction | None) -> bytes:
    """The row of the README; one that can't be read has an error, and null for all else."""
    if said is None:
        empty = dict.fromkeys(Prediction(*[None] * 4).to_dict())
        return json.dumps({**empty, "error": row.reason}, ensure_ascii=False).encode() + b"\n"
    return json.dumps(said.to_dict(), ensure_ascii=False).encode() + b"\n"


def _csv_row(row: Row, said: Prediction | None) -> bytes:
    if said is None:
        return _table_row(("", "", "", "", row.reason))
    found = said.to_dict()
    chance = "" if said.label is None else found["probabilities"][said.label]
    entities = "" if said.entities is None else json.dumps(found["entities"], ensure_ascii=False)
    return _table_row((said.text, said.label or "", chance, entities, ""))


def _table_row(fields: tuple) -> bytes:
    text = io.StringIO()
    # fields with a character of its line's end are quoted, so that has to be both of them
    csv.writer(text, lineterminator="\r\n").writerow(fields)
    return text.getvalue().removesuffix("\r\n").encode() + b"\n"


def _conll_sentence(row: Row, said: Prediction | None) -> bytes:
    if said is None:
        return _conll_error(row.reason)
    at = {start: number for number, (start, _) in enumerate(row.offsets)}
    ends = {end: number for number, (_, end) in enumerate(row.offsets, 1)}
    spans = [Span(at[e.start], ends[e.end], e.label) for e in said.entities or ()]
    tags = [] if said.entities is None else spans_to_tags(spans, len(row.words), "BIO")
    try:
        lines = [conll_line(word, tag) for word, tag in zip(row.words, tags or [None] * len(row.words))]
    except BadRow as reason:
        return _conll_error(str(reason))
    label = [] if said.label is None else [f"# label = {said.label}"]
    return "".join(f"{line}\n" for line in [*label, *lines, ""]).encode()


def _conll_error(reason: str) -> bytes:
    return f"# error = {' '.join(reason.split())}\n\n".encode()
