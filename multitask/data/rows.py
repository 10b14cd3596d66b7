"""One row: what makes it good, and the Example that it becomes, whatever format it came from."""

import json
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from multitask.data.labels import Span, tags_to_spans
from multitask.data.words import Offsets, split_words

KEYS = ("text", "tokens", "tags", "entities", "label")
_KEYS = frozenset(KEYS)
_SHORT = 32  # tags of a sentence whose like is likely to come again


@dataclass(slots=True)
class Example:
    """One row: its words, and what is annotated. None is "not annotated", an empty list is "no entity"."""

    words: list[str]
    spans: list[Span] | None = None  # in words
    label: str | None = None
    text: str | None = None  # the raw text, where the row has one, and its words' character offsets
    offsets: Offsets | None = None
    path: str = ""
    line: int = 0


class BadRow(ValueError):
    """The reason why a row can't be used; `line` where it is another than the row's first."""

    def __init__(self, reason: str, line: int | None = None):
        super().__init__(reason)
        self.line = line


def abbreviate(value: object, most: int = 60) -> str:
    """A value out of a file, as a message shows it: short, however long or deep it is."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    text = value if isinstance(value, str) else json.dumps(value)
    start = repr(text[:most]) if isinstance(value, str) else text[:most]
    return start if len(text) <= most else f"{start}..."


def example_from_text(text: str) -> Example:
    """A raw text without annotation."""
    offsets = split_words(text)
    return Example([text[start:end] for start, end in offsets], text=text, offsets=offsets)


def is_valid_utf8(text: str) -> bool:
    """False for lone surrogates: they stand for bytes that are no UTF-8, and no file can hold them."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def validate_row(record: dict | BadRow, unknown: Counter[str]) -> dict | BadRow:
    """The record, or why it can't be used. Counts the keys that are not read."""
    if isinstance(record, BadRow):
        return record
    if not record.keys() <= _KEYS:
        unknown.update(key for key in record if key not in _KEYS)
    row = {key: value for key, value in record.items() if value is not None and key in _KEYS}
    try:
        if ("text" in row) == ("tokens" in row):
            raise BadRow("a row has either text or tokens")
        if "text" in row:
            _check_text(row)
        else:
            _check_tokens(row)
        label = row.get("label", "-")
        if not isinstance(label, str) or not label.strip():
            raise BadRow(f"label is {abbreviate(label)}; it is a name, or left out where there is none")
        if not is_valid_utf8(label):
            raise BadRow("the label is not valid UTF-8")
    except BadRow as reason:
        return reason
    return row


def _check_tokens(row: dict) -> None:
    tokens, tags = row["tokens"], row.get("tags")
    if "entities" in row:
        raise BadRow("entities are character spans of a text; with tokens give tags")
    words = _together(tokens)
    if words is None:
        raise BadRow("tokens is a list of words")
    if not tokens:
        raise BadRow("no words")
    if not is_valid_utf8(words):
        raise BadRow("a word is not valid UTF-8")
    if tags is None:
        return
    tagged = _together(tags)
    if tagged is None or not all(tags) or not is_valid_utf8(tagged):
        raise BadRow("tags is a list of tags, such as O and B-PERSON")
    if len(tags) != len(tokens):
        raise BadRow(f"{len(tokens)} tokens, but {len(tags)} tags")


def _together(strings: list[str]) -> str | None:
    """All of a list's strings as one; None for what is no list of strings."""
    try:
        return "".join(strings) if isinstance(strings, list) else None
    except TypeError:
        return None


def _check_text(row: dict) -> None:
    text, entities = row["text"], row.get("entities")
    if "tags" in row:
        raise BadRow("tags belong to tokens; with a text give entities")
    if not isinstance(text, str):
        raise BadRow("text is a string")
    if not is_valid_utf8(text):
        raise BadRow("the text is not valid UTF-8")
    if not _has_word(text):
        raise BadRow("the text has no words")
    if entities is None:
        return
    if not isinstance(entities, list) or not all(isinstance(entity, dict) for entity in entities):
        raise BadRow('entities is a list of {"start", "end", "label"}')
    spans = sorted(_check_entity(entity, len(text)) for entity in entities)
    for (_, end, _), (start, _, label) in zip(spans, spans[1:]):
        if start < end:
            raise BadRow(
                f"two entities overlap at character {start} ({abbreviate(label)}); a word has one tag"
            )
    # after the overlaps, so that no character is looked at twice
    for start, end, _ in spans:
        if not _has_word(text[start:end]):
            raise BadRow(f"an entity from {start} to {end} that holds no word")


def _check_entity(entity: dict, length: int) -> tuple[int, int, str]:
    start, end, label = (entity.get(key) for key in ("start", "end", "label"))
    if type(start) is not int or type(end) is not int:
        found = f"{abbreviate(start)} and {abbreviate(end)}"
        raise BadRow(f"an entity's start and end are numbers of characters, not {found}")
    if not isinstance(label, str) or not label.strip() or not is_valid_utf8(label):
        raise BadRow(f"an entity's label is {abbreviate(label)}; it is a name such as PERSON")
    if not 0 <= start < end <= length:
        raise BadRow(
            f"an entity from {abbreviate(start)} to {abbreviate(end)} in a text of {length} characters"
        )
    return start, end, label


def _has_word(text: str) -> bool:
    # a letter or digit is one or a part of one; only where there is none, the splitting decides
    return any(map(str.isalnum, text)) or bool(split_words(text))


_repeated = lru_cache(1 << 13)(tags_to_spans)


def to_example(row: dict, prefixed: bool, path: str, line: int) -> tuple[Example, int]:
    """A checked row → its Example, and how many of its entities began with I-."""
    label, spans, began_inside = row.get("label"), None, 0
    if "tokens" in row:
        if "tags" in row:
            tags = row["tags"]
            read = _repeated if len(tags) <= _SHORT else tags_to_spans
            spans, began_inside = read(tuple(tags), prefixed)
            spans = list(spans)
        return Example(row["tokens"], spans, label, None, None, path, line), began_inside
    text, entities = row["text"], row.get("entities")
    cuts = [position for entity in entities or () for position in (entity["start"], entity["end"])]
    offsets = split_words(text, cuts)
    if entities is not None:
        starts = [start for start, _ in offsets]
        spans = sorted(
            Span(bisect_left(starts, entity["start"]), bisect_left(starts, entity["end"]), entity["label"])
            for entity in entities
        )
    words = [text[start:end] for start, end in offsets]
    return Example(words, spans, label, text, offsets, path, line), 0
