"""Convert a complete file of JSON Lines, in bounded memory, to a format that can't be written row by row."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from multitask.common.chunking import split_into_chunks

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
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number, offset = pa.string(), pa.float64(), pa.int64()
    entity = {"start": offset, "end": offset, "text": text, "label": text, "score": number}
    columns = {
        "text": text,
        "label": text,
        "probabilities": pa.map_(text, number),
        "entities": pa.list_(pa.struct(list(entity.items()))),
        "error": text,
    }
    schema = pa.schema(list(columns.items()))
    with open(lines, "rb") as source, pq.ParquetWriter(file, schema) as writer:
        for group in split_into_chunks(source, len, GROUP_BYTES):
            rows = list(map(json.loads, group))
            for row in rows:
                row["probabilities"] = row["probabilities"] and list(row["probabilities"].items())
            writer.write_table(pa.Table.from_pylist(rows, schema))
