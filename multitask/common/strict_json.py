"""JSON in which no key stands twice: Python's reader takes the last one without a word."""

import json
from collections import Counter

_DECODER = json.JSONDecoder()
_APART = (" :", "\t:", "\r:")  # a key and its colon


class RepeatedKey(ValueError):
    """An object has this key more than once."""

    def __init__(self, key: str):
        super().__init__(f"the key {key!r} stands twice in an object")
        self.key = key


def loads(text: str | bytes):
    """json.loads. Raises RepeatedKey besides."""
    return json.loads(text, object_pairs_hook=_once)


def loads_row(text: str):
    """`loads`, in two thirds of the time for an object whose only inner ones are in its list `entities`."""
    try:
        value, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return loads(text)  # for its message
    plain = end == len(text) and not any(map(text.count, _APART))
    return value if plain and text.count('":') == _keys(value) else loads(text)


def _keys(row) -> int:
    """How many keys a row and its entities have, behind each of which there is a colon."""
    if not isinstance(row, dict):
        return -1
    entities = row.get("entities")
    inner = entities if isinstance(entities, list) else ()
    return len(row) + sum(len(entity) for entity in inner if isinstance(entity, dict))


def _once(pairs: list[tuple[str, object]]) -> dict:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise RepeatedKey(next(key for key, n in Counter(key for key, _ in pairs).items() if n > 1))
    return values
