"""Rows of a corpus as their files have them: an encoded corpus holds no text."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from multitask.common.errors import InputError
from multitask.data.corpus import EncodedCorpus
from multitask.data.readers import Reading, once_or_twice, stream
from multitask.data.rows import Example
from multitask.data.texts import example_of_record

_SHOWN = 80  # characters of a text


def originals(paths: Sequence[str], rows: Collection[int], corpus: EncodedCorpus) -> dict[int, Example]:
    """The Examples of these rows, each with a text. The files are read again.

    Raises InputError where one is another than when the corpus was encoded."""

    def read(twice: bool) -> dict[int, Example]:
        # a bad row that is there was left out of the corpus too
        examples = enumerate(stream(paths, Reading(), "skip", twice=twice))
        return {row: example for row, example in examples if row in rows}

    found = once_or_twice(read) if rows else {}
    for row in rows:
        if row not in found or found[row].line != corpus.row_lines[row]:
            raise InputError(f"{', '.join(paths)}: changed while it was read")
        if found[row].text is None:
            joined = example_of_record({"tokens": found[row].words})
            found[row] = replace(found[row], text=joined.text, offsets=joined.offsets)
    return found


def beginning(text: str, most: int = _SHOWN) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
