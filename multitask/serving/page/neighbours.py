"""The sentences of the training corpus that a model finds most like another one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from multitask.common.chunking import split_into_chunks
from multitask.config.loading import load_settings
from multitask.data.formats import input_errors, read_records
from multitask.data.rows import BadRow, Example, unannotated_example
from multitask.serving.batcher import Busy
from multitask.serving.limits import estimate_tokens

if TYPE_CHECKING:
    from multitask.serving.service import Service

_CHUNK_COST = 256  # tokens that one who asks meanwhile may have to wait for
_PAUSE = 0.05  # seconds between two looks whether nobody asks


class Neighbour(NamedTuple):
    """A training sentence; similarity is the cosine of the embeddings."""

    text: str
    label: str | None
    similarity: float


class NearestSentences:
    """`done` of `total` sentences can be found; the others are read while nobody asks the model."""

    def __init__(self, examples: Sequence[Example]):
        self.examples, self.total, self.done = examples, len(examples), 0
        self.units = np.zeros((0, 0), np.float32)  # (N, D) embeddings of length 1
        self.kept: list[Example] = []

    async def fill(self, service: Service) -> None:
        """Read all sentences, a few at a time. Ends when that is done."""
        for chunk in self._chunks(service.limits.waiting_cost):
            while True:
                while service.batcher.rows:
                    await asyncio.sleep(_PAUSE)
                try:
                    found = await service.embed(chunk)
                    break
                except Busy:
                    await asyncio.sleep(_PAUSE)
            self._add(chunk, found)

    def nearest(self, embedding: np.ndarray, count: int = 5) -> list[Neighbour]:
        """The most similar of those read so far, best first."""
        if not self.kept:
            return []
        likeness = self.units[: len(self.kept)] @ _unit(embedding)
        best = np.argsort(-likeness, kind="stable")[:count]
        return [Neighbour(self.kept[at].text, self.kept[at].label, float(likeness[at])) for at in best]

    def _chunks(self, most: int) -> Iterator[list[Example]]:
        # a longer text could not be sent to the server either
        short = (row for row in self.examples if estimate_tokens(row) <= most)
        return split_into_chunks(short, estimate_tokens, _CHUNK_COST)

    def _add(self, chunk: Sequence[Example], found: Sequence[object]) -> None:
        self.done += len(chunk)
        good = [(row, each) for row, each in zip(chunk, found) if isinstance(each, np.ndarray)]
        if not good:
            return
        if not self.kept:
            self.units = np.zeros((self.total, len(good[0][1])), np.float32)
        at = len(self.kept)
        self.units[at : at + len(good)] = [_unit(embedding) for _, embedding in good]
        self.kept += [row for row, _ in good]


def training_sentences(model: str) -> Iterator[Example]:
    """The rows that a run's model was trained on, with their labels, as long as they are where they were.

    Raises InputError where the run's config.yml or its data can't be read."""
    for path in load_settings(Path(model).resolve().parent / "config.yml").data.train:
        with input_errors(path):
            for _, record in read_records(path):
                with suppress(BadRow):
                    row = unannotated_example(record)
                    row.label = None if isinstance(record, BadRow) else record.get("label")
                    yield row


def _unit(embedding: np.ndarray) -> np.ndarray:
    return embedding / max(float(np.linalg.norm(embedding)), 1e-12)
