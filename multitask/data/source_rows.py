"""Rows of a corpus as their files have them: an encoded corpus holds no text."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from multitask.common.errors import InputError
from multitask.data.corpus import EncodedCorpus
from multitask.data.readers import ReadResult, iter_examples, retry_with_counted_tags
from multitask.data.rows import Example
from multitask.data.texts import unannotated_example

_SHOWN = 80  # characters of a text


def read_source_rows(
    paths: Sequence[str], rows: Collection[int], corpus: EncodedCorpus
) -> dict[int, Example]:
    """The Examples of these rows, each with a text. The files are read again.

    Raises InputError where one is another than when the corpus was encoded."""

    def read(twice: bool) -> dict[int, Example]:
        # a bad row that is there was left out of the corpus too
        examples = enumerate(iter_examples(paths, ReadResult(), "skip", twice=twice))
        return {row: example for row, example in examples if row in rows}

    found = retry_with_counted_tags(read) if rows else {}
    for row in rows:
        if row not in found or found[row].line != corpus.row_lines[row]:
            raise InputError(f"{', '.join(paths)}: changed while it was read")
        if found[row].text is None:
            joined = unannotated_example({"tokens": found[row].words})
            found[row] = replace(found[row], text=joined.text, offsets=joined.offsets)
    return found


def truncate(text: str, most: int = _SHOWN) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
