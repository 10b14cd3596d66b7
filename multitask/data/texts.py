"""What is to be predicted: texts of any file, one by one; a row that can't be read has its reason instead."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from multitask.data.formats import Record, input_errors, read_records
from multitask.data.readers import is_corpus, iter_text_lines
from multitask.data.rows import BadRow, Example, abbreviate, example_from_text, is_valid_utf8
from multitask.data.words import Offsets


@dataclass(frozen=True)
class UnreadableRow:
    """A row without a prediction, and why: file:line and the reason."""

    reason: str


Row = Example | UnreadableRow


def read_rows(source: str) -> Iterator[Row]:
    """The rows of a corpus file, whose annotation is not looked at, or else the lines of a text file.

    "-" is standard input. Rows of words keep them, joined by spaces to a text. Raises InputError where the
    file as a whole can't be read."""
    if source == "-" or not is_corpus(source):
        return _rows(source, ((line, {"text": text}) for line, text in iter_text_lines(source)))
    with input_errors(source):
        return _rows(source, read_records(source))


def _rows(source: str, found: Iterator[Record]) -> Iterator[Row]:
    with input_errors(source):
        for line, record in found:
            try:
                yield unannotated_example(record)
            except BadRow as reason:
                yield UnreadableRow(f"{source}:{reason.line or line}: {reason}")


def rows_from_texts(texts: Sequence[str], most: int | None = None) -> Iterator[Row]:
    """The rows of texts, of up to `most` characters: those of a command line, where a byte that is no UTF-8
    has become a lone surrogate, or of a request."""
    for number, text in enumerate(texts, 1):
        try:
            if most is not None and len(text) > most:
                raise BadRow(f"{len(text):,} characters; at most {most:,} are read")
            yield unannotated_example({"text": text})
        except BadRow as reason:
            yield UnreadableRow(f"text {number}: {reason}")


def unannotated_example(record: dict | BadRow) -> Example:
    """A row in its JSON Lines form → what is predicted of it. Raises BadRow."""
    if isinstance(record, BadRow):
        raise record
    text, words = record.get("text"), record.get("tokens")
    if (text is None) == (words is None):
        raise BadRow("a row has either text or tokens")
    if words is None:
        if not isinstance(text, str):
            raise BadRow(f"text is {abbreviate(text)}; it is a string")
        if not is_valid_utf8(text):
            raise BadRow("the text is not valid UTF-8")
        return example_from_text(text)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise BadRow("tokens is a list of words")
    text = " ".join(words)
    if not is_valid_utf8(text):
        raise BadRow("a word is not valid UTF-8")
    return Example(words, text=text, offsets=_joined(words))


def _joined(words: list[str]) -> Offsets:
    offsets, start = [], 0
    for word in words:
        offsets.append((start, start + len(word)))
        start += len(word) + 1
    return offsets
