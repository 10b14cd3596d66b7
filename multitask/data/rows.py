"""One row in its JSON Lines form: its checks, and the Example that it becomes."""

from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise

from multitask.data.labels import Span, tags_to_spans
from multitask.data.notices import Notices, abbreviate
from multitask.data.words import Offsets, split_words

KEYS = ("text", "tokens", "tags", "entities", "label")
_KEYS = frozenset(KEYS)
_SHORT_SENTENCE = 32  # words; short sentences often have the same tags as an earlier one
_cached_tags_to_spans = lru_cache(1 << 13)(tags_to_spans)


@dataclass(slots=True)
class Example:
    """The words of a row and its annotation. None means "not annotated", an empty list "no entity"."""

    words: list[str]
    spans: list[Span] | None = None  # in words
    label: str | None = None
    text: str | None = None  # the raw text, if the row has one
    offsets: Offsets | None = None  # of the words, in characters of the text
    path: str = ""
    line: int = 0


class BadRow(ValueError):
    """The reason why a row can't be used. `line` is given if it is not the first line of the row."""

    def __init__(self, reason: str, line: int | None = None):
        super().__init__(reason)
        self.line = line


def is_valid_utf8(text: str) -> bool:
    """False for lone surrogates: they stand for bytes that are not UTF-8, and can't be written to a file."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def validate_words(row: dict) -> None:
    """Check a row's text or tokens, which may be empty. Raises BadRow."""
    text, tokens = row.get("text"), row.get("tokens")
    if (text is None) == (tokens is None):
        raise BadRow("a row has either text or tokens")
    if tokens is None:
        if not isinstance(text, str):
            raise BadRow(f"text is {abbreviate(text)}; it must be a string")
        if not is_valid_utf8(text):
            raise BadRow("the text is not valid UTF-8")
    elif (joined := _join_strings(tokens)) is None:
        raise BadRow("tokens must be a list of words")
    elif not is_valid_utf8(joined):
        raise BadRow("a word is not valid UTF-8")


def validate_row(record: dict | BadRow, notices: Notices) -> dict:
    """A row for training or evaluation, without its unknown keys and null values.

    Counts the unknown keys in `notices`. Raises BadRow if the words or the annotation can't be used."""
    if isinstance(record, BadRow):
        raise record
    if not record.keys() <= _KEYS:
        notices.unknown_keys.update(key for key in record if key not in _KEYS)
    validate_words(record)
    row = {key: value for key, value in record.items() if value is not None and key in _KEYS}
    if "text" in row:
        _check_entities(row)
    else:
        _check_tags(row)
    label = row.get("label", "-")
    if not isinstance(label, str) or not label.strip():
        raise BadRow(f"label is {abbreviate(label)}; it must be a name, or left out where there is none")
    if not is_valid_utf8(label):
        raise BadRow("the label is not valid UTF-8")
    return row


def _check_tags(row: dict) -> None:
    tokens, tags = row["tokens"], row.get("tags")
    if "entities" in row:
        raise BadRow("entities are character spans of a text; with tokens give tags")
    if not tokens:
        raise BadRow("no words")
    if tags is None:
        return
    joined = _join_strings(tags)
    if joined is None or not all(tags) or not is_valid_utf8(joined):
        raise BadRow("tags must be a list of tags, such as O and B-PERSON")
    if len(tags) != len(tokens):
        raise BadRow(f"{len(tokens)} tokens, but {len(tags)} tags")


def _check_entities(row: dict) -> None:
    text, entities = row["text"], row.get("entities")
    if "tags" in row:
        raise BadRow("tags belong to tokens; with a text give entities")
    if not _has_word(text):
        raise BadRow("the text has no words")
    if entities is None:
        return
    if not isinstance(entities, list) or not all(isinstance(entity, dict) for entity in entities):
        raise BadRow('entities must be a list of {"start", "end", "label"}')
    spans = sorted(_check_entity(entity, len(text)) for entity in entities)
    for (_, end, _), (start, _, label) in pairwise(spans):
        if start < end:
            raise BadRow(
                f"two entities overlap at character {start} ({abbreviate(label)}); a word has one tag"
            )
    # only now that no two overlap: no character is looked at twice
    for start, end, _ in spans:
        if not _has_word(text[start:end]):
            raise BadRow(f"the entity from {start} to {end} has no words")


def _check_entity(entity: dict, length: int) -> tuple[int, int, str]:
    start, end, label = (entity.get(key) for key in ("start", "end", "label"))
    if type(start) is not int or type(end) is not int:
        values = f"{abbreviate(start)} and {abbreviate(end)}"
        raise BadRow(f"an entity's start and end are {values}; they must be character offsets")
    if not isinstance(label, str) or not label.strip() or not is_valid_utf8(label):
        raise BadRow(f"an entity's label is {abbreviate(label)}; it must be a name such as PERSON")
    if not 0 <= start < end <= length:
        raise BadRow(
            f"an entity from {abbreviate(start)} to {abbreviate(end)} in a text of {length} characters"
        )
    return start, end, label


def _join_strings(strings: object) -> str | None:
    """The strings of a list as one; None for anything else."""
    try:
        return "".join(strings) if isinstance(strings, list) else None
    except TypeError:
        return None


def _has_word(text: str) -> bool:
    # a letter or a digit is always part of a word; without one, the splitting decides
    return any(map(str.isalnum, text)) or bool(split_words(text))


def example_from_text(text: str) -> Example:
    """A raw text → its Example without annotation."""
    offsets = split_words(text)
    return Example([text[start:end] for start, end in offsets], text=text, offsets=offsets)


def example_from_words(words: list[str]) -> Example:
    """Words → their Example without annotation, with a text: the words, joined by spaces."""
    ends = accumulate(len(word) + 1 for word in words)  # each with the space after the word
    offsets = [(end - 1 - len(word), end - 1) for word, end in zip(words, ends)]
    return Example(words, text=" ".join(words), offsets=offsets)


def unannotated_example(record: dict | BadRow) -> Example:
    """A row to predict → its Example; its annotation is not looked at. Raises BadRow."""
    if isinstance(record, BadRow):
        raise record
    validate_words(record)
    text = record.get("text")
    return example_from_words(record["tokens"]) if text is None else example_from_text(text)


def to_example(row: dict, prefixed: bool, path: str, line: int) -> tuple[Example, int]:
    """A row as from `validate_row` → its Example, and how many of its entities begin with I-.

    `prefixed` says whether tags have prefixes such as B-."""
    label = row.get("label")
    if "tokens" in row:
        words, tags = row["tokens"], row.get("tags")
        if tags is None:
            return Example(words, None, label, None, None, path, line), 0
        convert = _cached_tags_to_spans if len(tags) <= _SHORT_SENTENCE else tags_to_spans
        tagged, began_inside = convert(tuple(tags), prefixed)
        return Example(words, list(tagged), label, None, None, path, line), began_inside
    text, entities, spans = row["text"], row.get("entities"), None
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
