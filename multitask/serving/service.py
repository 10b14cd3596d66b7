"""Served models: they take rows from many requests at once and return the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from multitask.common.errors import InputError
from multitask.data.examples import Example
from multitask.data.texts import Row, UnreadableRow
from multitask.inference.predictions import Prediction
from multitask.inference.predictor import Predictor
from multitask.inference.writers import json_line
from multitask.serving.batcher import Batcher, Item
from multitask.serving.engine import Engine
from multitask.serving.limits import Limits
from multitask.serving.worker import Worker


class Service:
    """The model of the folder `name`, computed by its Worker, which is loaded. Create it in the server's
    event loop.

    `predict`, `predict_json` and `embed` raise ServerBusy, RequestTooLarge and WorkerEnded."""

    def __init__(self, name: str, worker: Worker, limits: Limits):
        self.name, self.limits = name, limits
        self.labels = worker.labels()
        self.engine = Engine(worker, limits)
        self.batcher = Batcher(self.engine.run, limits)

    async def predict(self, rows: Sequence[Row]) -> list[tuple[Row, Prediction | None]]:
        """Each row with its prediction, which has words and embedding. A row that failed becomes an
        UnreadableRow; the prediction of an UnreadableRow is None."""
        return [
            (answer, None) if isinstance(answer, UnreadableRow) else (row, answer)
            for row, answer in zip(rows, await self._answers("prediction", rows))
        ]

    async def predict_json(self, rows: Sequence[Row]) -> list[bytes]:
        """A line of JSON for each row, as `task_5.py predict` writes it."""
        answers = _numbered(rows, await self._answers("json", rows))
        return [one if isinstance(one, bytes) else json_line(one, None).strip() for one in answers]

    async def embed(self, rows: Sequence[Row]) -> list[np.ndarray | UnreadableRow]:
        """Each row's embedding (D,), or an UnreadableRow with the reason why there is none."""
        return _numbered(rows, await self._answers("embedding", rows))

    def unavailable(self) -> str | None:
        """Why requests get no answers now; None if they do."""
        return "the server is stopping" if self.batcher.closing else self.engine.unavailable()

    async def close(self) -> None:
        """Answer the accepted requests, then end the model's process."""
        await self.batcher.drain()
        await self.engine.close()

    async def _answers(self, kind: str, rows: Sequence[Row]) -> list[Any]:
        items = [Item(kind, row) for row in rows if isinstance(row, Example)]
        computed = iter(await self.batcher.submit(items))
        return [next(computed) if isinstance(row, Example) else row for row in rows]


def _numbered(rows: Sequence[Row], answers: Sequence[Any]) -> list[Any]:
    """The answers; the reason of a row that the model failed on begins with its number."""
    return [
        UnreadableRow(f"text {number}: {answer.reason}")
        if isinstance(answer, UnreadableRow) and isinstance(row, Example)
        else answer
        for number, (row, answer) in enumerate(zip(rows, answers), 1)
    ]


class Models:
    """The served model, if any, and the folders `names` of models to compare it with, of which at most one is
    loaded, by `load` in its own process."""

    def __init__(
        self,
        main: Service | None,
        names: Sequence[str],
        limits: Limits,
        load: Callable[[str], Predictor],
    ):
        self.main, self.names, self.limits, self.load = main, list(names), limits, load
        self.other: Service | None = None
        self.lock = asyncio.Lock()

    async def open(self, name: str) -> Service:
        """The model `name`, loaded if needed. Raises InputError if it is unknown or can't be loaded."""
        async with self.lock:
            if self.other and self.other.name == name and not self.other.engine.has_failed:
                return self.other
            if name not in self.names:
                raise InputError(f"{name} is not one of the models to compare with")
            if self.other:
                previous, self.other = self.other, None
                await previous.close()
            worker = Worker(partial(self.load, name))
            try:
                await asyncio.to_thread(worker.labels)
            except BaseException:
                await asyncio.to_thread(worker.close)
                raise
            self.other = Service(name, worker, self.limits)
            return self.other

    async def end(self) -> None:
        """End the models' processes."""
        await asyncio.gather(*(service.engine.close() for service in (self.main, self.other) if service))

    async def drain(self) -> None:
        """Refuse new requests and answer the accepted ones."""
        await asyncio.gather(*(service.batcher.drain() for service in (self.main, self.other) if service))
