"""Reads corpus files as training does, but into a list of Examples."""

from collections.abc import Sequence

from multitask.data.readers import ReadResult, iter_examples, retry_with_counted_tags


def read_corpus(paths: Sequence[str], on_bad_row: str = "stop", hint: str = "") -> ReadResult:
    """The content of the files; raises InputError as `iter_examples` does."""

    def read(count_tags: bool) -> ReadResult:
        result = ReadResult()
        result.examples = list(iter_examples(paths, result, on_bad_row, hint, count_tags))
        return result

    return retry_with_counted_tags(read)
