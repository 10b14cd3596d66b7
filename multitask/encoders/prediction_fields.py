"""Rules for the fields that prediction takes over from training, in config.json and in labels.json.

Needs neither torch nor pydantic, since an exported model runs without them."""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from multitask.data.labels import LEARNED_SCHEMES

_LIMIT = 1 << 24  # of sizes


class Rule(NamedTuple):
    """Whether a JSON value is valid, and the noun phrase that completes "is not …" where it is not."""

    is_valid: Callable[[Any], bool]
    meaning: str


def whole_number(minimum: int) -> Rule:
    """The rule of a whole number from `minimum`."""
    return Rule(
        lambda value: type(value) is int and minimum <= value < _LIMIT, f"a whole number from {minimum}"
    )


def one_of(*names: str | None) -> Rule:
    """The rule of a value that is one of `names`."""
    # `in` would hash or compare lists; only None itself and equal strings match here
    return Rule(
        lambda value: any(value is name or (isinstance(value, str) and value == name) for name in names),
        f"one of {', '.join('null' if name is None else name for name in names)}",
    )


def _is_name(value: Any) -> bool:
    # half of a surrogate pair can't be written as UTF-8
    return isinstance(value, str) and value != "" and not any("\ud800" <= c <= "\udfff" for c in value)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) == len(set(filter(_is_name, value)))


def _is_id2label(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and set(value) == {str(i) for i in range(len(value))}
        and all(map(_is_name, value.values()))
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -sys.float_info.max <= value <= sys.float_info.max


def _is_square_matrix(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(row, list) and len(row) == len(value) for row in value)
        and all(_is_number(number) for row in value for number in row)
    )


SQUARE_MATRIX = Rule(_is_square_matrix, "a square matrix: a list of lists of finite numbers")
_TEMPERATURE = Rule(lambda value: _is_number(value) and value > 0, "a finite number above 0")

RULES = {
    "classes": Rule(lambda value: value is None or _are_names(value), "a list of different names, or null"),
    "tags": Rule(_are_names, "a list of different names"),  # in labels.json, for id2label in config.json
    "id2label": Rule(
        lambda value: value is None or _is_id2label(value), "an object with the names of 0, 1, 2, …, or null"
    ),
    "tag_scheme": one_of(*LEARNED_SCHEMES, None),
    "pooling": one_of("cls", "mean"),
    "token_head": one_of("linear", "convolution", "window_crf", "convolution_crf"),
    "max_length": whole_number(4),
    "stride": whole_number(0),
    "temperature_task_a": _TEMPERATURE,
    "temperature_task_b": _TEMPERATURE,
}
