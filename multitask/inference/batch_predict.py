"""Rows of any length in, what is predicted of them out, a chunk at a time: by one process or by several."""

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from typing import Protocol

import numpy as np
from tqdm import tqdm

from multitask.common import distributed
from multitask.common.atomic_files import NpyWriter, atomic_file
from multitask.common.signals import StopSignals
from multitask.data.rows import Example
from multitask.data.texts import Row
from multitask.inference.predictor import Predictor
from multitask.inference.writers import Render

logger = logging.getLogger(__name__)

ROWS, CHARACTERS = 4096, 1 << 20  # that a process has at once


class Sink(Protocol):
    """What answers are written to."""

    def write(self, rows: list[Row], answers: bytes, embeddings: np.ndarray | None) -> None: ...


class StandardOutput:
    """Standard output, and a file for the embeddings where they are wanted, there only when it is whole."""

    def __init__(self, vectors: str | None):
        self.files = ExitStack()
        self.vectors = NpyWriter(self.files.enter_context(atomic_file(vectors))) if vectors else None

    def write(self, rows: list[Row], answers: bytes, embeddings: np.ndarray | None) -> None:
        sys.stdout.buffer.write(answers)
        sys.stdout.buffer.flush()
        if self.vectors:
            self.vectors.write(embeddings)

    def __enter__(self) -> "StandardOutput":
        return self

    def __exit__(self, kind: type | None, *error) -> None:
        if kind is None and self.vectors:
            self.vectors.finish()
        self.files.__exit__(kind, *error)


def predict_all(
    predictor: Predictor, rows: Iterator[Row], render: Render, sink: Sink | None, embeddings: bool
) -> None:
    """Predict all rows and write them in order. Says how many of them could not be read.

    Without a sink nothing is written: the first process has one, reads, deals chunks to all of them and
    writes what it gets back; the others only work. SIGINT and SIGTERM stop one process anywhere but while it
    writes, several of them between two rounds."""
    parts, total, unread = split_into_chunks(rows), 0, 0
    bar = tqdm(unit=" texts", disable=True if sink is None or sys.stdout.isatty() else None)
    with StopSignals() as stop, sink or nullcontext(), bar:
        while True:
            # the first process's parts end first, so where its own is empty all are
            dealt = (
                [next(parts, []) for _ in range(distributed.world_size())] if distributed.rank() == 0 else []
            )
            part, more = distributed.scatter([(part, bool(dealt[0])) for part in dealt])
            if not more:
                break
            found = distributed.gather(predict_chunk(predictor, part, render, embeddings)) or []
            with stop.deferred():
                for part, (answers, vectors) in zip(dealt, found):
                    sink.write(part, answers, vectors)
                    total += len(part)
                    unread += sum(not isinstance(row, Example) for row in part)
            bar.update(total - bar.n)
    if unread:
        logger.warning(f"{unread:,} of {total:,} rows could not be read; each has the reason in its place")


def split_into_chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Rows, as many at a time as a process bears. A text of any length is a chunk."""
    chunk, characters = [], 0
    for row in rows:
        chunk.append(row)
        characters += len(row.text) if isinstance(row, Example) else 0
        if len(chunk) == ROWS or characters > CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def predict_chunk(
    predictor: Predictor, rows: list[Row], render: Render, embeddings: bool
) -> tuple[bytes, np.ndarray | None]:
    """What is written of rows, and their embeddings (n, D): NaN for one that can't be read."""
    examples = [row for row in rows if isinstance(row, Example)]
    predictions = iter(predictor.predict_examples(examples, embeddings))
    said = [next(predictions) if isinstance(row, Example) else None for row in rows]
    plain = (each and each._replace(embedding=None) for each in said)
    answers = b"".join(map(render, rows, plain if embeddings else said))
    if not embeddings:
        return answers, None
    nothing = np.full(predictor.config.hidden_size, np.nan, np.float32)
    vectors = [nothing if each is None else each.embedding for each in said]
    return answers, np.stack(vectors) if vectors else np.zeros((0, len(nothing)), np.float32)
