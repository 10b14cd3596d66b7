"""Parquet files → rows, batch by batch. pyarrow is imported only here, where it is used."""

import json
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from multitask.common.errors import InputError, require_packages
from multitask.data.formats.lines import FilePart, Record
from multitask.data.formats.tools.conversion import Converter
from multitask.data.notices import Notices
from multitask.data.rows import PREDICTION_KEYS

_BATCH_ROWS = 1024


def read_parquet(
    path: str, notices: Notices, annotated: bool = True, part: FilePart | None = None
) -> Iterator[Record]:
    """Yield the rows of a Parquet file, or of a part of it, each with its number from 1 on as its line.

    Columns of dates, bytes and other types that JSON lacks are not read; `notices` counts them."""
    require_packages(["pyarrow"], "a Parquet file", "requirements-parquet.txt")
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            columns = [field.name for field in schema if _is_json(field.type)]
            if len(set(schema.names)) < len(schema.names):
                raise InputError(f"{path}: two columns have the same name")
            for name in set(schema.names) - set(columns) - PREDICTION_KEYS:
                notices.unknown_keys[name] += file.metadata.num_rows
            converter = Converter(path, notices, annotated, _features(schema.metadata))
            groups, row, end = _row_groups(file.metadata, part)
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=groups, columns=columns):
                skipped = min(max(part.start - row, 0), len(batch)) if part else 0
                row += skipped
                for value in batch.slice(skipped, end - row).to_pylist():
                    row += 1
                    yield row, converter.convert(value, row)
                if row >= end:
                    return
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        if getattr(error, "errno", None) is not None:  # of the disk; pyarrow's own have none
            raise
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(f"{path}: can't be read as Parquet: {reason}") from None


def _row_groups(metadata: Any, part: FilePart | None) -> tuple[list[int], int, int]:
    """The row groups that hold a part of a file, the rows before them, and the row at which the part ends."""
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    ends = list(accumulate(sizes))
    start, end = (part.start, part.end) if part else (0, metadata.num_rows)
    groups = [g for g, last in enumerate(ends) if last > start and last - sizes[g] < end]
    return groups, ends[groups[0]] - sizes[groups[0]] if groups else 0, end


def _is_json(kind: Any) -> bool:
    """Whether the values of an Arrow type are strings, numbers, or lists and objects of these."""
    from pyarrow import types

    if types.is_struct(kind):
        return all(_is_json(field.type) for field in kind)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_json(kind.value_type)
    if types.is_dictionary(kind):
        return _is_json(kind.value_type)
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_integer)
    return any(test(kind) for test in (*tests, types.is_floating, types.is_boolean, types.is_null))


def _features(metadata: dict[bytes, bytes] | None) -> dict | None:
    """The features that Hugging Face's datasets write into the metadata of a schema."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return features if isinstance(features, dict) else None
