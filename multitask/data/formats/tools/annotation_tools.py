"""Rows of doccano, Prodigy and spaCy → their annotation; and what the readers of all tools share."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

from multitask.common.errors import InputError
from multitask.data.notices import Notices, abbreviate
from multitask.data.rows import BadRow

DOCCANO_METADATA = ("id", "meta", "Comments", "user", "annotator", "annotation_approver")
PRODIGY_METADATA = (
    *("meta", "options", "config", "priority", "score", "_input_hash", "_task_hash", "_session_id"),
    *("_annotator_id", "_view_id", "_timestamp", "_is_binary", "_block_idx"),
)
_PRODIGY_ANSWERS = ("accept", "reject", "ignore")
_LABEL_STUDIO_SPANS = re.compile(rb'"labels"')  # a quote inside a JSON string has a \ before it


@dataclass
class FileFacts:
    """What is known about all rows of a file.

    `features` describe the columns of a Hugging Face dataset, if the file itself does that."""

    path: str
    notices: Notices
    features: dict | None = None

    @cached_property
    def has_label_studio_spans(self) -> bool:
        """Whether any row of the file has a span of Label Studio. Reads the file again."""
        with open(self.path, "rb") as file:
            return any(map(_LABEL_STUDIO_SPANS.search, file))

    @cached_property
    def dataset_features(self) -> dict:
        """The features of the file, or those in a dataset_info.json beside it; empty if there is none.

        Raises InputError if that file can't be read."""
        info = dataset_info(self.path)
        if self.features is not None or not info.is_file():
            return self.features or {}
        try:
            features = json.loads(info.read_bytes())["features"]
        except (ValueError, RecursionError, KeyError, TypeError):
            raise InputError(f"{info}: not the JSON object with features that datasets writes") from None
        return features if isinstance(features, dict) else {}


def dataset_info(path: str | Path) -> Path:
    """The file in which `save_to_disk` of Hugging Face's datasets puts the names of classes."""
    return Path(path).parent / "dataset_info.json"


def span(entity: Mapping[str, Any], start: str = "start", end: str = "end") -> dict:
    """An entity of a tool with keys of these names → an entity of a row, with its text if it has one."""
    text = {"text": entity["text"]} if isinstance(entity.get("text"), str) else {}
    return {"start": entity.get(start), "end": entity.get(end), "label": entity.get("label"), **text}


def one_class(candidates: Mapping[str, object]) -> dict:
    """{"label": name} of the only class among the values of some keys; {} if there is none.

    A value is a name or a list of names. Raises BadRow for several classes."""
    given = {key: value for key, value in candidates.items() if value not in (None, [], "")}
    if len(given) > 1:
        raise BadRow(f"{' and '.join(map(abbreviate, given))} may both be the class; keep one of them")
    for key, value in given.items():
        names = value if isinstance(value, list) else [value]
        if len(names) > 1:
            raise BadRow(f"{abbreviate(key)} has {len(names)} classes; a row has one")
        return {"label": names[0]}
    return {}


def is_doccano(row: dict) -> bool:
    """Whether a row is of doccano's JSONL, of its present or an old version."""
    if "text" not in row and not isinstance(row.get("data"), str):
        return False
    entities = row.get("entities")
    return (
        isinstance(row.get("data"), str)
        or "Comments" in row
        or any(_is_list_of(row.get(key), str) or _is_triples(row.get(key)) for key in ("label", "labels"))
        or _is_list_of(row.get("cats"), str)
        or (_is_list_of(entities, dict) and any("start_offset" in entity for entity in entities))
    )


def take_doccano(row: dict, file: FileFacts, line: int) -> dict:
    """Take the annotation out of a row of doccano."""
    classes: dict[str, object] = {}
    marked: dict[str, list[dict]] = {}
    for key in ("label", "labels", "cats"):
        value = row.get(key)
        if _is_triples(value) and value:
            marked[key] = [_from_triple(triple) for triple in row.pop(key)]
        elif _is_list_of(value, str) or isinstance(value, str):
            classes[key] = row.pop(key)
    given = row.get("entities")
    if _is_triples(given):
        marked["entities"] = [_from_triple(triple) for triple in row.pop("entities")]
    elif _is_list_of(given, dict):
        row.pop("entities")
        marked["entities"] = [
            span(entity, "start_offset", "end_offset") if "start_offset" in entity else span(entity)
            for entity in given
        ]
    if row.get("relations") == []:
        row.pop("relations")
    annotation = one_class(classes)
    if len([key for key, spans in marked.items() if spans]) > 1:
        raise BadRow(f"{' and '.join(marked)} both hold entities; keep one of them")
    entities = [entity for spans in marked.values() for entity in spans]
    if [] in classes.values() and not annotation and not marked:
        message = "an empty list of labels is read as not annotated"
        file.notices.add(f'{message}; where a text has no entity, write "entities": []', line)
    return {**annotation, **({"entities": entities} if marked else {})}


def is_prodigy(row: dict) -> bool:
    """Whether a row is of Prodigy's JSONL."""
    return (
        "_input_hash" in row
        or "_task_hash" in row
        or row.get("answer") in _PRODIGY_ANSWERS
        or _is_list_of(row.get("spans"), dict)
        or (_is_list_of(row.get("tokens"), dict) and bool(row["tokens"]))
        or ("accept" in row and "options" in row)
    )


def take_prodigy(row: dict, file: FileFacts, line: int) -> dict:
    """Take the annotation out of a row of Prodigy. A row that was not accepted has none."""
    answer = row.pop("answer", "accept")
    classes = {key: row.pop(key) for key in ("label", "accept") if key in row}
    spans = row.pop("spans", None)
    if answer != "accept":
        message = f"answered {abbreviate(answer)} in Prodigy: the row stays, without annotation"
        file.notices.add(message, line)
        return {}
    if row.get("_is_binary") or row.get("_view_id") == "ner":
        message = "a yes-or-no answer in Prodigy: words beside its span are read as no entity"
        file.notices.add(message, line)
    annotation = one_class(classes)
    if spans is None:
        return annotation
    if not _is_list_of(spans, dict):
        raise BadRow('spans must be a list of {"start", "end", "label"}')
    return {**annotation, "entities": [span(entity) for entity in spans]}


def is_spacy(row: dict) -> bool:
    """Whether a row is of spaCy's training data."""
    return bool(row.get("entities") and _is_triples(row["entities"])) or isinstance(row.get("cats"), dict)


def take_spacy(row: dict, file: FileFacts, line: int) -> dict:
    """Take the annotation out of a row of spaCy."""
    annotation: dict = {}
    if _is_triples(row.get("entities")):
        annotation["entities"] = [_from_triple(triple) for triple in row.pop("entities")]
    cats = row.get("cats")
    if isinstance(cats, dict):
        row.pop("cats")
        if not all(isinstance(score, int | float) for score in cats.values()):
            raise BadRow("cats must be an object of classes and their scores from 0 to 1")
        likely = [name for name, score in cats.items() if score >= 0.5]
        annotation |= one_class({"cats": likely, "label": row.pop("label", None)})
        if cats and not likely:
            file.notices.add("no score in cats reaches 0.5: the row is read without a class", line)
    return annotation


def row_of_pair(value: object) -> dict | None:
    """spaCy's pair [text, {"entities", "cats"}] as a row; None for any other value."""
    match value:
        case [str() as text, {**annotation}] if "text" not in annotation:
            return {**annotation, "text": text}
    return None


def _is_list_of(value: object, kind: type) -> TypeGuard[list]:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _is_triples(value: object) -> TypeGuard[list]:
    """Whether a value is a list of [start, end, label]; a fourth item is a tool's own."""
    return isinstance(value, list) and all(
        isinstance(item, list) and 3 <= len(item) <= 4 and isinstance(item[2], str) for item in value
    )


def _from_triple(triple: Iterable) -> dict:
    start, end, label, *_ = triple
    return {"start": start, "end": end, "label": label}
