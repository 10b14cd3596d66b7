"""Label Studio's JSON, JSON_MIN and CSV → the annotation of a row."""

import json
from collections.abc import Iterable
from json import JSONDecodeError

from multitask.data.formats.tools.annotation_tools import FileFacts, one_class, span
from multitask.data.notices import abbreviate
from multitask.data.rows import BadRow

TASK_METADATA = (
    *("id", "inner_id", "project", "meta", "created_at", "updated_at", "updated_by", "file_upload", "drafts"),
    *("predictions", "total_annotations", "cancelled_annotations", "total_predictions", "agreement"),
    *("comment_count", "unresolved_comment_count", "last_comment_updated_at", "comment_authors"),
)
MIN_METADATA = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement")
_MIN_MARKS = ("annotation_id", "lead_time", "annotator")


def is_task(row: dict) -> bool:
    """Whether a row is a task of Label Studio's JSON."""
    return isinstance(row.get("data"), dict)


def text_of_task(row: dict) -> str:
    """The text of a task: data.text, or the only string in data."""
    data = row["data"]
    texts = [value for value in data.values() if isinstance(value, str)]
    if isinstance(data.get("text"), str) or len(texts) == 1:
        return data["text"] if isinstance(data.get("text"), str) else texts[0]
    raise BadRow(f"data has {len(texts)} strings, and none is called text; call the right one text")


def take_task(row: dict, file: FileFacts, line: int) -> dict:
    """Take the annotation out of a task."""
    row.pop("data")
    given = [row.pop(key) for key in ("annotations", "completions") if isinstance(row.get(key), list)]
    annotations = []
    for annotation in (item for items in given for item in items):
        if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
            raise BadRow('an annotation must be an object with a list "result"')
        if not annotation.get("was_cancelled"):
            annotations.append(_from_results(annotation["result"], file, line))
    if not annotations:
        return {}
    if len({_comparable(annotation) for annotation in annotations}) > 1:
        reason = f"{len(annotations)} annotations of this task disagree; keep one, or make them equal"
        raise BadRow(reason)
    entities = [entity for annotation in annotations for entity in annotation.get("entities", ())]
    return {**annotations[0], **({"entities": entities} if "entities" in annotations[0] else {})}


def _comparable(annotation: dict) -> str:
    keys = ("start", "end", "label")
    spans = sorted(json.dumps([entity[key] for key in keys]) for entity in annotation.get("entities", ()))
    return json.dumps([spans, annotation.get("label")])


def _from_results(results: list, file: FileFacts, line: int) -> dict:
    entities: list[dict] = []
    classes: dict[str, object] = {}
    for result in results:
        if not isinstance(result, dict):
            raise BadRow(f"a result is {abbreviate(result)}; it must be an object")
        kind, value = result.get("type"), result.get("value")
        if kind == "labels" and isinstance(value, dict):
            entities += _entities(value)
        elif kind == "choices" and isinstance(value, dict) and "start" not in value:
            classes[str(result.get("from_name"))] = value.get("choices")
        else:
            file.notices.add(f"Label Studio's results of type {abbreviate(kind)} are not read", line)
    return _annotation(entities, classes, file)


def is_min(row: dict) -> bool:
    """Whether a row is of Label Studio's JSON_MIN, or of a CSV file with the same columns."""
    return any(mark in row for mark in _MIN_MARKS) or any(map(_is_spans, row.values()))


def take_min(row: dict, file: FileFacts, line: int) -> dict:
    """Take the annotation out of a row of JSON_MIN: spans and choices may have any key."""
    for key in MIN_METADATA:
        row.pop(key, None)
    entities: list[dict] = []
    classes: dict[str, object] = {}
    for key, value in list(row.items()):
        if _is_spans(value):
            entities += [entity for item in row.pop(key) for entity in _entities(item)]
        elif isinstance(value, dict) and "choices" in value:
            classes[key] = row.pop(key)["choices"]
    named = [key for key, value in row.items() if isinstance(value, str)]
    # the project's own name first: beside it, other strings are data
    for key in ["label"] if "label" in named else named:
        classes[key] = row.pop(key)
    return _annotation(entities, classes, file)


def from_cells(cells: dict[str, str]) -> dict | None:
    """The row of JSON_MIN that a row of a table holds; None if the table is not Label Studio's."""
    values = {name: _parsed(cell) for name, cell in cells.items() if cell and name != "text"}
    return {"text": cells["text"], **values} if is_min(cells) or is_min(values) else None


def _parsed(cell: str) -> object:
    if cell.startswith(("[", "{")):
        try:
            value = json.loads(cell)
        except (JSONDecodeError, RecursionError, ValueError):
            return cell
        return value if _is_spans(value) or (isinstance(value, dict) and "choices" in value) else cell
    return cell


def _is_spans(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) and "labels" in item for item in value)


def _entities(value: object) -> Iterable[dict]:
    """One entity for each label of a region."""
    labels = value.get("labels") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(labels, list):
        raise BadRow('a span of Label Studio must be {"start", "end", "labels": [...]}')
    return [span({**value, "label": label}) for label in labels]


def _annotation(entities: list[dict], classes: dict[str, object], file: FileFacts) -> dict:
    # without any span in the file, its project marks no entities
    annotated = {"entities": entities} if entities or file.has_label_studio_spans else {}
    return {**annotated, **one_class(classes)}
