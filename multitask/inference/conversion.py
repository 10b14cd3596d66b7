"""Convert a complete file of JSON Lines, in bounded memory, to a format that can't be written row by row."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from multitask.common.chunking import split_into_chunks

if TYPE_CHECKING:  # pyarrow is imported where it is used
    import pyarrow as pa

GROUP_BYTES = 16 << 20  # of JSON Lines that become one row group of a Parquet file

# The path of the JSON Lines, and the new file.
Convert = Callable[[Path, BinaryIO], object]


def write_json_array(lines: Path, file: BinaryIO) -> None:
    """Write the rows as one JSON array, with a row per line."""
    separator = b"[\n"
    with open(lines, "rb") as rows:
        for row in rows:
            file.write(separator + row.removesuffix(b"\n"))
            separator = b",\n"
    file.write(b"\n]\n" if separator == b",\n" else b"[]\n")


def write_parquet(lines: Path, file: BinaryIO) -> None:
    """Write rows of predictions as Parquet. Needs pyarrow."""
    import pyarrow.parquet as pq

    schema = parquet_schema()
    with open(lines, "rb") as source, pq.ParquetWriter(file, schema) as writer:
        for group in split_into_chunks(source, len, GROUP_BYTES):
            writer.write_table(parquet_table(list(map(json.loads, group)), schema))


def parquet_schema() -> "pa.Schema":
    """The columns of predictions in Parquet: the keys of a row of JSON Lines."""
    import pyarrow as pa

    text, number, offset = pa.string(), pa.float64(), pa.int64()
    entity = {"start": offset, "end": offset, "text": text, "label": text, "score": number}
    columns = {
        "text": text,
        "label": text,
        "probabilities": pa.map_(text, number),
        "entities": pa.list_(pa.struct(list(entity.items()))),
        "error": text,
    }
    return pa.schema(list(columns.items()))


def parquet_table(rows: list[dict[str, Any]], schema: "pa.Schema") -> "pa.Table":
    """Rows of predictions as JSON has them, which are changed → a table. Keys that they lack become null."""
    import pyarrow as pa

    for row in rows:
        row["probabilities"] = row["probabilities"] and list(row["probabilities"].items())
    return pa.Table.from_pylist(rows, schema)
