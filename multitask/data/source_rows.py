"""Rows of an encoded corpus with their texts, from the files that it was encoded from."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from multitask.common.errors import InputError
from multitask.data.corpus import EncodedCorpus
from multitask.data.readers import ReadResult, iter_examples, retry_with_counted_tags
from multitask.data.rows import Example, example_from_words


def read_source_rows(
    paths: Sequence[str], rows: Collection[int], corpus: EncodedCorpus
) -> dict[int, Example]:
    """Read the files of a corpus again → the Examples of some of its row numbers, each with a text.

    Raises InputError if a file has changed since the corpus was encoded."""

    def read(count_tags: bool) -> dict[int, Example]:
        # "skip": the corpus has no bad rows either
        examples = iter_examples(paths, ReadResult(), "skip", count_tags=count_tags)
        return {row: example for row, example in enumerate(examples) if row in rows}

    examples = retry_with_counted_tags(read) if rows else {}
    for row in rows:
        if row not in examples or examples[row].line != corpus.row_lines[row]:
            raise InputError(f"{', '.join(paths)}: changed while it was read")
        if examples[row].text is None:
            joined = example_from_words(examples[row].words)
            examples[row] = replace(examples[row], text=joined.text, offsets=joined.offsets)
    return examples


def truncate(text: str, length: int = 80) -> str:
    """The first `length` characters of a text, with an ellipsis if there are more."""
    return text if len(text) <= length else f"{text[:length]}…"
