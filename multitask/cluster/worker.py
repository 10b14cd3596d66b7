"""What each worker of a cluster does: it predicts shards and writes each as a Parquet file."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from multitask.cluster.job import Done, metadata_of, shard_name
from multitask.cluster.shards import Shard, changed, version_of
from multitask.common.atomic_files import atomic_file
from multitask.common.chunking import split_into_chunks
from multitask.common.device import out_of_memory
from multitask.common.errors import InputError, one_line
from multitask.data.examples import Example
from multitask.data.texts import Row, UnreadableRow, read_part
from multitask.inference.batch_predict import CHARACTERS, ROWS
from multitask.inference.conversion import parquet_schema, parquet_table
from multitask.inference.predictions import Prediction
from multitask.inference.predictor import Predictor
from multitask.inference.writers import row_fields

if TYPE_CHECKING:
    import pyarrow as pa

_GROUP_ROWS = 1 << 16  # of a row group


class Work(NamedTuple):
    """What a worker needs to know besides its shards. Relative paths begin at `start`."""

    start: str
    model: str
    device: str | None
    accuracy: float | None
    precision: float | None
    folder: str
    job: str
    shards: int


class Worker:
    """Predicts shards with the model of `work`. Raises InputError as Predictor does."""

    def __init__(self, work: Work):
        self.work = work
        self.predictor = Predictor.from_pretrained(work.model, work.device)
        self.predictor.answer_only_if(work.accuracy, work.precision)

    def predict(self, shard: Shard) -> Done:
        """Predict a shard and write its file: all rows in order, those that can't be read with an `error`.

        Raises InputError if the input has changed, or can't be read, and OSError if the disk is full."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if version_of(shard.path) != shard.version:
            raise changed(shard.path)
        place = [pa.field("file", pa.string()), pa.field("line", pa.int64())]
        schema = pa.schema([*place, *parquet_schema()])
        rows = unreadable = 0
        target = Path(self.work.folder) / shard_name(shard.number, self.work.shards)
        with atomic_file(target) as file, pq.ParquetWriter(file, schema, write_page_checksum=True) as writer:
            for table, bad in self._tables(shard, schema):
                writer.write_table(table)
                rows, unreadable = rows + len(table), unreadable + bad
            if rows != shard.rows or version_of(shard.path) != shard.version:
                raise changed(shard.path)
            done = Done(shard.number, rows, unreadable)
            writer.add_key_value_metadata(metadata_of(self.work.job, done))
        return done

    def _tables(self, shard: Shard, schema: "pa.Schema") -> "Iterator[tuple[pa.Table, int]]":
        """Yield the predictions of a shard in tables of some rows, and how many of these are unreadable."""
        import pyarrow as pa

        tables: list[pa.Table] = []
        bad = 0
        chunks = split_into_chunks(read_part(shard.path, shard.part), _characters, CHARACTERS, ROWS)
        for chunk in chunks:
            rows, predictions = self._predict(shard.path, chunk)
            fields = [
                {"file": shard.path, "line": line, **row_fields(row, prediction)}
                for (line, _), row, prediction in zip(chunk, rows, predictions)
            ]
            tables.append(parquet_table(fields, schema))
            bad += sum(isinstance(row, UnreadableRow) for row in rows)
            if sum(map(len, tables)) >= _GROUP_ROWS:
                yield pa.concat_tables(tables), bad
                tables, bad = [], 0
        if tables:
            yield pa.concat_tables(tables), bad

    def _predict(
        self, path: str, numbered: Sequence[tuple[int, Row]]
    ) -> tuple[list[Row], list[Prediction | None]]:
        """Rows, each with its line → the rows, and their predictions: None for an unreadable one.

        If they can't be predicted together, each is retried alone: one that fails again becomes unreadable.
        Where each fails, the fault is not theirs, and the error is raised."""
        rows = [row for _, row in numbered]
        examples = [row for row in rows if isinstance(row, Example)]
        try:
            in_order = iter(self.predictor.predict_examples(examples))
        except RuntimeError as error:
            if len(examples) < 2 or out_of_memory(error):
                raise
            retried = [self._predict_alone(f"{path}:{line}", row) for line, row in numbered]
            if not any(prediction for _, prediction in retried):
                raise
            return [row for row, _ in retried], [prediction for _, prediction in retried]
        return rows, [next(in_order) if isinstance(row, Example) else None for row in rows]

    def _predict_alone(self, place: str, row: Row) -> tuple[Row, Prediction | None]:
        if isinstance(row, UnreadableRow):
            return row, None
        try:
            return row, self.predictor.predict_examples([row])[0]
        except RuntimeError as error:
            return UnreadableRow(f"{place}: can't be predicted: {one_line(error)}"), None


def _characters(numbered: tuple[int, Row]) -> int:
    row = numbered[1]
    return len(row.text or "") if isinstance(row, Example) else 0


def explain(error: Exception) -> str | None:
    """The line for a user about an error of a worker; None for an error of the program."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{(error.strerror or str(error)).lower()}"
    if out_of_memory(error):
        return f"out of memory ({one_line(error)}); fewer --workers need less"
    return None


def enter(start: str) -> None:
    """Go to the folder in which the job was started. Raises InputError if this machine does not have it."""
    try:
        os.chdir(start)
    except OSError:
        place = f"{os.uname().nodename}: has no folder {start}"
        raise InputError(f"{place}; all machines need the same disk under the same path") from None
