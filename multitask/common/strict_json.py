"""A JSON reader that refuses repeated keys, of which Python's own silently takes the last."""

import json
from collections import Counter
from typing import Any

_DECODER = json.JSONDecoder()
_SPACED_COLONS = (" :", "\t:", "\r:")  # white space between a key and its colon


class RepeatedKey(ValueError):
    """An object has the key `key` more than once."""

    def __init__(self, key: str):
        super().__init__(f"the key {key!r} stands twice in an object")
        self.key = key


def loads(text: str | bytes) -> Any:
    """json.loads that also raises RepeatedKey."""
    return json.loads(text, object_pairs_hook=_dict_of_unique_keys)


def decode_at(text: str, start: int) -> tuple[Any, int]:
    """The value that begins at a position of a text, and the position after it. Raises as `loads`."""
    return _STRICT_DECODER.raw_decode(text, start)


def loads_row(text: str) -> Any:
    """`loads` for a row of data, in two thirds of the time if its only inner objects are its `entities`."""
    try:
        value, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return loads(text)  # for its message
    plain = end == len(text) and not any(map(text.count, _SPACED_COLONS))
    # each key is followed by `":`, so there are more of these than keys if a key is repeated
    return value if plain and text.count('":') == _count_keys(value) else loads(text)


def _count_keys(row: object) -> int:
    """The number of keys of a row and its entities; -1 if it is not an object."""
    if not isinstance(row, dict):
        return -1
    entities = row.get("entities")
    inner = entities if isinstance(entities, list) else ()
    return len(row) + sum(len(entity) for entity in inner if isinstance(entity, dict))


def _dict_of_unique_keys(pairs: list[tuple[str, object]]) -> dict:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise RepeatedKey(next(key for key, n in Counter(key for key, _ in pairs).items() if n > 1))
    return values


_STRICT_DECODER = json.JSONDecoder(object_pairs_hook=_dict_of_unique_keys)
