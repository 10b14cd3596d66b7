"""Rows of Hugging Face's datasets: other names of the columns, and numbers that stand for names."""

from typing import Any

from multitask.data.formats.tools.annotation_tools import FileFacts, one_class
from multitask.data.notices import abbreviate
from multitask.data.rows import BadRow

METADATA = ("id",)
_TAGS = ("tags", "ner_tags", "labels")
_LABELS = ("intent", "category", "class", "sentence_label", "labels")
_SECRET = -1  # the class of every row in a test set whose answers are not published
_INFO = "dataset_info.json"


class NoNames(BadRow):
    """Numbers stand for names, and nothing says for which."""


def is_dataset_row(row: dict) -> bool:
    """Whether a row has other names for tokens, tags or label, or numbers in place of their names."""
    numbers = type(row.get("label")) is int or any(type(tag) is int for tag in _tags(row, "tags"))
    return bool(other_names(row)) or numbers


def other_names(row: dict) -> dict[str, str]:
    """The keys of a row that stand for tokens, tags and label, by the key that each stands for."""
    names = {}
    if "words" in row and not {"text", "tokens"} & row.keys():
        names["tokens"] = "words"
    if row.get("tags") is None and (keys := [key for key in _TAGS if _tags(row, key)]):
        names["tags"] = keys[0]
    if row.get("label") is None and (keys := _label_keys(row)):
        names["label"] = keys[0]
    return names


def take_dataset_row(row: dict, file: FileFacts, line: int) -> dict:
    """Take tags and label out of a row. Raises BadRow for several labels, NoNames for numbers."""
    annotation: dict[str, Any] = {}
    names = other_names(row)
    if tags := _tags(row, key := names.get("tags", "tags")):
        row.pop(key)
        annotation["tags"] = tags
        if any(type(tag) is int for tag in tags):
            annotation["tags"] = [_name(tag, key, file, tags) if type(tag) is int else tag for tag in tags]
    if "label" in names:
        one_class({key: row[key] for key in _label_keys(row)})
    label = row.pop(names.get("label", "label"), None)
    if type(label) is int:
        label = _name(label, names.get("label", "label"), file, label)
    return annotation if label is None else {**annotation, "label": label}


def _tags(row: dict, key: str) -> list:
    """The tags under a key, which must be names or numbers; empty if there are none."""
    tags = row.get(key)
    return tags if isinstance(tags, list) and all(type(tag) in (str, int) for tag in tags) else []


def _label_keys(row: dict) -> list[str]:
    return [key for key in _LABELS if type(row.get(key)) in (str, int)]


def _name(number: int, key: str, file: FileFacts, value: object) -> str | None:
    """The name that a number under a key stands for; None for a class that is kept secret."""
    names = _names(file.dataset_features.get(key))
    if names is None:
        names_it = f"put the dataset's {_INFO} beside the file; its features give the names of {key}"
        if isinstance(value, list):
            raise NoNames(f"{key} must be a list of names, or of numbers with names: {names_it}")
        raise NoNames(f"{key} is {abbreviate(value)}; it must be a name, or a number with a name: {names_it}")
    if number == _SECRET and value == _SECRET:
        return None
    if not 0 <= number < len(names):
        raise BadRow(
            f"{key} has the number {abbreviate(number)}, and the dataset names 0 to {len(names) - 1}"
        )
    return names[number]


def _names(feature: object) -> list[str] | None:
    """The names of a ClassLabel, or of a list of them."""
    while feature:
        if isinstance(feature, list):
            feature = feature[0]
        elif not isinstance(feature, dict):
            return None
        elif isinstance(names := feature.get("names"), list):
            return names if all(isinstance(name, str) for name in names) else None
        else:
            feature = feature.get("feature")
    return None
