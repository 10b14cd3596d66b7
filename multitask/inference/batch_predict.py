"""Batch prediction: read rows, predict them in chunks in one or several processes, write the results."""

import logging
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from multitask.common import chunking, distributed
from multitask.common.array_cache import NpyWriter
from multitask.common.atomic_files import atomic_file
from multitask.common.checksums import folder_hash
from multitask.common.signals import StopSignals
from multitask.data.examples import Example
from multitask.data.texts import Row, UnreadableRow
from multitask.inference.predictor import Predictor, check_folder
from multitask.inference.writers import Render

logger = logging.getLogger(__name__)

ROWS, CHARACTERS = 4096, 1 << 20  # limits of one chunk


class Output(AbstractContextManager, Protocol):
    """Where predictions are written: a context that completes its files if no exception leaves it."""

    def write(self, rows: list[Row], rendered: bytes, embeddings: np.ndarray | None) -> None:
        """Append rows, rendered to bytes, and their embeddings (n, D); None if there are none to write."""


class StandardOutput(AbstractContextManager):
    """An Output that prints rows and writes embeddings to the file `vectors`, which appears when complete."""

    def __init__(self, vectors: str | None):
        self.files = ExitStack()
        self.vectors = NpyWriter(self.files.enter_context(atomic_file(vectors))) if vectors else None

    def write(self, rows: list[Row], rendered: bytes, embeddings: np.ndarray | None) -> None:
        sys.stdout.buffer.write(rendered)
        sys.stdout.buffer.flush()
        if self.vectors:
            assert embeddings is not None
            self.vectors.write(embeddings)

    def __exit__(self, *error: Any) -> None:
        if self.vectors and error[0] is None:
            self.vectors.finish()
        self.files.__exit__(*error)


def facts_of(
    model: str,
    suffix: str,
    embeddings: bool,
    accuracy: float | None,
    precision: float | None,
    spreadsheet: bool = False,
    soft_targets: bool = False,
) -> dict[str, Any]:
    """What predictions depend on besides the texts: the content of a model folder, and the options. None
    stands for what an earlier version did.

    Raises InputError if there is no such folder."""
    check_folder(model)
    is_model = any(Path(model, name).is_file() for name in ("config.json", "model.onnx"))
    return {
        "model": folder_hash(Path(model)) if is_model else None,  # loading says what is wrong
        "format": suffix,
        "choice of embeddings": embeddings,
        "--accuracy": accuracy,
        "--precision": precision,
        "--spreadsheet": spreadsheet or None,
        "--soft-targets": soft_targets or None,
    }


def predict_all(
    predictor: Predictor,
    rows: Iterator[Row],
    render: Render,
    output: Output | None,
    embeddings: bool,
    tag_probabilities: bool = False,
) -> None:
    """Predict all rows and write them in order, with embeddings, or the probabilities of each word's tags, if
    wanted. Logs how many rows could not be read.

    The first process reads the rows, sends chunks to all processes and writes the results to its `output`.
    The other processes only predict; their `output` is None. SIGINT and SIGTERM stop a single process, except
    while it writes, and several processes between two rounds of chunks."""
    chunks, total, unreadable = split_rows(rows), 0, 0
    bar = tqdm(unit=" texts", disable=True if output is None or sys.stdout.isatty() else None)
    with StopSignals() as stop, output or nullcontext(), bar:
        while True:
            # chunks run out at the last process first: if the first process has none, no process has
            parts = (
                [next(chunks, []) for _ in range(distributed.world_size())] if distributed.rank() == 0 else []
            )
            part, more = distributed.scatter([(part, bool(parts[0])) for part in parts])
            if not more:
                break
            own = predict_chunk(predictor, part, render, embeddings, tag_probabilities)
            results = distributed.gather(own) or []
            with stop.deferred():
                for part, (rendered, vectors) in zip(parts, results):
                    assert output is not None  # only the first process has results
                    output.write(part, rendered, vectors)
                    total += len(part)
                    unreadable += sum(isinstance(row, UnreadableRow) for row in part)
            bar.update(total - bar.n)
    if unreadable:
        logger.warning(
            f"{unreadable:,} of {total:,} rows could not be read; the output has the reason in place of each"
        )


def split_rows(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Yield rows in order, in chunks of at most ROWS rows and CHARACTERS characters; longer texts alone."""

    def characters(row: Row) -> int:
        return len(row.text or "") if isinstance(row, Example) else 0

    return chunking.split_into_chunks(rows, characters, CHARACTERS, ROWS)


def predict_chunk(
    predictor: Predictor,
    rows: list[Row],
    render: Render,
    embeddings: bool,
    tag_probabilities: bool = False,
) -> tuple[bytes, np.ndarray | None]:
    """Predict n rows → the rendered rows and, if wanted, embeddings (n, D): NaN for an unreadable row."""
    examples = [row for row in rows if isinstance(row, Example)]
    in_order = iter(predictor.predict_examples(examples, embeddings, tag_probabilities=tag_probabilities))
    predictions = [next(in_order) if isinstance(row, Example) else None for row in rows]
    without = (prediction and prediction._replace(embedding=None) for prediction in predictions)
    rendered = b"".join(map(render, rows, without))
    if not embeddings:
        return rendered, None
    vectors = np.full((len(rows), predictor.config.hidden_size), np.nan, np.float32)
    for vector, prediction in zip(vectors, predictions):
        if prediction:
            vector[:] = prediction.embedding
    return rendered, vectors
