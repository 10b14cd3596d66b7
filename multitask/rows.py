"""One row: what makes it good, and the Example that it becomes, whatever format it came from."""

import json
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass

from multitask.labels import Span, tags_to_spans
from multitask.words import Offsets, split_words

KEYS = ("text", "tokens", "tags", "entities", "label")


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


def text_example(text: str) -> Example:
    """A raw text without annotation."""
    offsets = split_words(text)
    return Example([text[start:end] for start, end in offsets], text=text, offsets=offsets)


def valid_text(text: str) -> bool:
    """False for lone surrogates: they stand for bytes that are no UTF-8, and no file can hold them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def checked(record: dict | BadRow, unknown: Counter[str]) -> dict | BadRow:
    """The record, or why it can't be used. Counts the keys that are not read."""
    if isinstance(record, BadRow):
        return record
    unknown.update(key for key in record if key not in KEYS)
    row = {key: record[key] for key in KEYS if record.get(key) is not None}
    try:
        if ("text" in row) == ("tokens" in row):
            raise BadRow("a row has either text or tokens")
        if "text" in row:
            _check_text(row)
        else:
            _check_tokens(row)
        label = row.get("label", "-")
        if not isinstance(label, str) or not label.strip():
            raise BadRow(f"label is {json.dumps(label)}; it is a name, or left out where there is none")
        if not valid_text(label):
            raise BadRow("the label is not valid UTF-8")
    except BadRow as reason:
        return reason
    return row


def _check_tokens(row: dict) -> None:
    tokens, tags = row["tokens"], row.get("tags")
    if "entities" in row:
        raise BadRow("entities are character spans of a text; with tokens give tags")
    if not isinstance(tokens, list) or not all(isinstance(word, str) for word in tokens):
        raise BadRow("tokens is a list of words")
    if not tokens:
        raise BadRow("no words")
    if not all(map(valid_text, tokens)):
        raise BadRow("a word is not valid UTF-8")
    if tags is None:
        return
    if not isinstance(tags, list) or not all(
        isinstance(tag, str) and tag and valid_text(tag) for tag in tags
    ):
        raise BadRow("tags is a list of tags, such as O and B-PERSON")
    if len(tags) != len(tokens):
        raise BadRow(f"{len(tokens)} tokens, but {len(tags)} tags")


def _check_text(row: dict) -> None:
    text, entities = row["text"], row.get("entities")
    if "tags" in row:
        raise BadRow("tags belong to tokens; with a text give entities")
    if not isinstance(text, str):
        raise BadRow("text is a string")
    if not valid_text(text):
        raise BadRow("the text is not valid UTF-8")
    if not split_words(text):
        raise BadRow("the text has no words")
    if entities is None:
        return
    if not isinstance(entities, list) or not all(isinstance(entity, dict) for entity in entities):
        raise BadRow('entities is a list of {"start", "end", "label"}')
    spans = sorted(_check_entity(entity, text) for entity in entities)
    for (_, end, _), (start, _, label) in zip(spans, spans[1:]):
        if start < end:
            raise BadRow(f"two entities overlap at character {start} ({label}); a word has one tag")


def _check_entity(entity: dict, text: str) -> tuple[int, int, str]:
    start, end, label = (entity.get(key) for key in ("start", "end", "label"))
    if type(start) is not int or type(end) is not int:
        raise BadRow(f"an entity's start and end are numbers of characters, not {start!r} and {end!r}")
    if not isinstance(label, str) or not label.strip() or not valid_text(label):
        raise BadRow(f"an entity's label is {json.dumps(label)}; it is a name such as PERSON")
    if not 0 <= start < end <= len(text):
        raise BadRow(f"an entity from {start} to {end} in a text of {len(text)} characters")
    if not split_words(text[start:end]):
        raise BadRow(f"an entity from {start} to {end} that holds no word")
    return start, end, label


def example_of(row: dict, prefixed: bool) -> tuple[Example, int]:
    """A checked row → its Example, and how many of its entities began with I-."""
    label, spans, began_inside = row.get("label"), None, 0
    if "tokens" in row:
        if "tags" in row:
            spans, began_inside = tags_to_spans(row["tags"], prefixed)
        return Example(row["tokens"], spans, label), began_inside
    text, entities = row["text"], row.get("entities")
    cuts = [position for entity in entities or () for position in (entity["start"], entity["end"])]
    offsets = split_words(text, cuts)
    if entities is not None:
        starts = [start for start, _ in offsets]
        spans = sorted(
            Span(bisect_left(starts, entity["start"]), bisect_left(starts, entity["end"]), entity["label"])
            for entity in entities
        )
    return Example([text[start:end] for start, end in offsets], spans, label, text, offsets), 0
