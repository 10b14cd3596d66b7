"""One row in its JSON Lines form, and its checks."""

from itertools import pairwise

from multitask.data.notices import Notices, abbreviate
from multitask.data.words import find_words, split_words

KEYS = ("text", "tokens", "tags", "entities", "label")
_KEYS = frozenset(KEYS)
PROBABILITY_KEYS = ("probabilities", "tag_probabilities")  # what a student learns (distillation.teacher)
PREDICTION_KEYS = frozenset((*PROBABILITY_KEYS, "embedding", "error"))  # of predictions, read back
_KEPT = _KEYS | {*PROBABILITY_KEYS}


class BadRow(ValueError):
    """The reason why a row can't be used. `line` is given if it is not the first line of the row."""

    def __init__(self, reason: str, line: int | None = None):
        super().__init__(reason)
        self.line = line


def is_valid_utf8(text: str) -> bool:
    """False for lone surrogates: they stand for bytes that are not UTF-8, and can't be written to a file."""
    if text.isascii():  # most strings are, and need no copy
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def validate_words(row: dict) -> None:
    """Check a row's text, tokens or both, which may be empty. Raises BadRow."""
    text, tokens = row.get("text"), row.get("tokens")
    if text is None and tokens is None:
        raise BadRow("a row has a text or tokens")
    if text is not None:
        if not isinstance(text, str):
            raise BadRow(f"text is {abbreviate(text)}; it must be a string")
        if not is_valid_utf8(text):
            raise BadRow("the text is not valid UTF-8")
    if tokens is not None:
        if (joined := _join_strings(tokens)) is None:
            raise BadRow("tokens must be a list of words")
        if not is_valid_utf8(joined):
            raise BadRow("a word is not valid UTF-8")
        if text is not None and find_words(text, tokens) is None:
            raise BadRow("the tokens are not the words of the text, in order")


def validate_row(record: dict | BadRow, notices: Notices, line: int) -> dict:
    """A row for training or evaluation, without its unknown keys, null values and repeated entities. Its
    probabilities stay as they are.

    Adds unknown keys and repeated entities to `notices`. Raises BadRow if the words or the annotation can't
    be used."""
    if isinstance(record, BadRow):
        raise record
    if not record.keys() <= _KEYS:
        notices.unknown_keys.update(key for key in record if key not in _KEYS | PREDICTION_KEYS)
        if record.get("error"):
            raise BadRow(f"a prediction that failed: {abbreviate(record['error'])}")
    validate_words(record)
    row = {key: value for key, value in record.items() if value is not None and key in _KEPT}
    if "tokens" in row:
        _check_tags(row)
    else:
        _check_entities(row, notices, line)
    if "label" in row:
        label = row["label"]
        if not isinstance(label, str) or not label.strip():
            raise BadRow(f"label is {abbreviate(label)}; it must be a name, or left out where there is none")
        if not is_valid_utf8(label):
            raise BadRow("the label is not valid UTF-8")
        row["label"] = label.strip()
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
    if joined is not None and (" " in joined or not joined.isprintable()):  # all white space but the blank
        tags = row["tags"] = [tag.strip() for tag in tags]
    if joined is None or not all(tags) or not is_valid_utf8(joined):
        raise BadRow("tags must be a list of tags, such as O and B-PERSON")
    if len(tags) != len(tokens):
        raise BadRow(f"{len(tokens)} tokens, but {len(tags)} tags")


def _check_entities(row: dict, notices: Notices, line: int) -> None:
    text, entities = row["text"], row.get("entities")
    if "tags" in row:
        raise BadRow("tags belong to tokens; with a text give entities")
    if not _has_word(text):
        raise BadRow("the text has no words")
    if entities is None:
        return
    if not isinstance(entities, list) or not all(isinstance(entity, dict) for entity in entities):
        raise BadRow('entities must be a list of {"start", "end", "label"}')
    spans = sorted({_check_entity(entity, text) for entity in entities})
    if len(spans) < len(entities):
        notices.add("an entity is given twice; it counts once", line)
    for (start, end, first), (next_start, next_end, label) in pairwise(spans):
        if (start, end) == (next_start, next_end):
            raise BadRow(
                f"the entity from {start} to {end} is {abbreviate(first)} and {abbreviate(label)}; "
                "a word has one tag"
            )
        if next_start < end:
            raise BadRow(
                f"two entities overlap at character {next_start} ({abbreviate(label)}); a word has one tag"
            )
    # only now that no two overlap: no character is looked at twice
    for start, end, _ in spans:
        if not _has_word(text[start:end]):
            raise BadRow(f"the entity from {start} to {end} has no words")
    row["entities"] = spans


def _check_entity(entity: dict, text: str) -> tuple[int, int, str]:
    start, end, label = (entity.get(key) for key in ("start", "end", "label"))
    if type(start) is not int or type(end) is not int:
        values = f"{abbreviate(start)} and {abbreviate(end)}"
        raise BadRow(f"an entity's start and end are {values}; they must be character offsets")
    if not isinstance(label, str) or not label.strip() or not is_valid_utf8(label):
        raise BadRow(f"an entity's label is {abbreviate(label)}; it must be a name such as PERSON")
    own_text = entity.get("text", entity.get("value"))
    if isinstance(own_text, str) and text[max(start, 0) : max(end, 0)] != own_text:
        raise BadRow(_offset_problem(text, start, end, own_text))
    if not 0 <= start < end <= len(text):
        raise BadRow(
            f"an entity from {abbreviate(start)} to {abbreviate(end)} in a text of {len(text)} characters"
        )
    return start, end, label.strip()


def _offset_problem(text: str, start: int, end: int, own_text: str) -> str:
    """Why offsets are wrong for an entity that carries its own text, and which way of counting would fit."""
    found = text[max(start, 0) : max(end, 0)]
    problem = (
        f"the offsets {start} to {end} give {abbreviate(found)}, but the entity is {abbreviate(own_text)}"
    )
    # slices of UTF-16 may cut a character in half
    units = text.encode("utf-16-le")[2 * max(start, 0) : 2 * max(end, 0)]
    if units == own_text.encode("utf-16-le", "surrogatepass"):
        first = len(text.encode("utf-16-le")[: 2 * start].decode("utf-16-le", "ignore"))
        right = f"{first} to {first + len(own_text)}"
        return f"{problem}; they count UTF-16 units, and must count characters ({right})"
    if start >= 0 and text[start : end + 1] == own_text:
        return f"{problem}; the end is inclusive, and must be exclusive ({start} to {end + 1})"
    if start > 0 and text[start - 1 : end] == own_text:
        return f"{problem}; the start counts from 1, and must count from 0 ({start - 1} to {end})"
    return problem


def _join_strings(strings: object) -> str | None:
    """The strings of a list as one; None for anything else."""
    try:
        return "".join(strings) if isinstance(strings, list) else None
    except TypeError:
        return None


def _has_word(text: str) -> bool:
    # a letter or a digit is always part of a word; without one, the splitting decides
    return any(map(str.isalnum, text)) or bool(split_words(text))
