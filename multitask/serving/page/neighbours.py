"""Finds the sentences of the training corpus whose embeddings are most similar to that of another text."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from multitask.common.chunking import split_into_chunks
from multitask.config.loading import load_settings
from multitask.data.examples import Example, unannotated_example
from multitask.data.formats.files import read_records
from multitask.data.formats.lines import input_errors
from multitask.data.rows import BadRow
from multitask.data.texts import UnreadableRow
from multitask.serving.batcher import ServerBusy
from multitask.serving.limits import estimate_tokens
from multitask.serving.worker import WorkerEnded

if TYPE_CHECKING:
    from multitask.serving.service import Service

_CHUNK_COST = 256  # tokens; a request that comes meanwhile waits for a chunk at most
_PAUSE = 0.05  # seconds between two checks whether the model is idle


class Neighbour(NamedTuple):
    """A training sentence; similarity is the cosine of the embeddings."""

    text: str
    label: str | None
    similarity: float


class NearestSentences:
    """Searches the sentences embedded so far, `done` of `total`. `fill` embeds all when the model is idle."""

    def __init__(self, sentences: Sequence[Example]):
        self.sentences, self.total, self.done = sentences, len(sentences), 0
        self.embedded: list[Example] = []
        self.units = np.zeros((0, 0), np.float32)  # (total, D): embeddings of `embedded`, of length 1

    async def fill(self, service: Service) -> None:
        """Embed all sentences, a few at a time."""
        # a request with a longer text would be refused as well
        short = (row for row in self.sentences if estimate_tokens(row) <= service.limits.waiting_cost)
        for chunk in split_into_chunks(short, estimate_tokens, _CHUNK_COST):
            vectors = await _embed_when_idle(service, chunk)
            self.done += len(chunk)
            for row, vector in zip(chunk, vectors):
                if isinstance(vector, np.ndarray):
                    if not self.embedded:
                        self.units = np.zeros((self.total, len(vector)), np.float32)
                    self.units[len(self.embedded)] = _unit(vector)
                    self.embedded.append(row)

    def nearest(self, embedding: np.ndarray, count: int = 5) -> list[Neighbour]:
        """The `count` sentences with the highest cosine, best first."""
        if not self.embedded:
            return []
        cosines = self.units[: len(self.embedded)] @ _unit(embedding)
        best = np.argsort(-cosines, kind="stable")[:count]
        return [Neighbour(self.embedded[i].text, self.embedded[i].label, float(cosines[i])) for i in best]


def training_sentences(model: str) -> Iterator[Example]:
    """The rows that a run's model was trained on, with their labels.

    Raises InputError if the run's config.yml or its training files can't be read."""
    return labelled_sentences(load_settings(Path(model).resolve().parent / "config.yml").data.train)


def labelled_sentences(paths: Sequence[str]) -> Iterator[Example]:
    """The good rows of corpus files with their labels, if any. Raises InputError if a file can't be read."""
    for path in paths:
        with input_errors(path):
            for _, record in read_records(path):
                with suppress(BadRow):
                    row = unannotated_example(record)
                    row.label = None if isinstance(record, BadRow) else record.get("label")
                    yield row


async def _embed_when_idle(service: Service, rows: Sequence[Example]) -> list[np.ndarray | UnreadableRow]:
    while True:
        while service.batcher.rows:
            await asyncio.sleep(_PAUSE)
        try:
            return await service.embed(rows)
        except (ServerBusy, WorkerEnded):  # the model's process may be being replaced
            await asyncio.sleep(_PAUSE)


def _unit(embedding: np.ndarray) -> np.ndarray:
    return embedding / max(float(np.linalg.norm(embedding)), 1e-12)
