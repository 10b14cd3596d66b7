"""Served models: they take rows from many requests at once and return the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from multitask.common.errors import InputError
from multitask.data.rows import Example
from multitask.data.texts import Row, UnreadableRow
from multitask.inference.predictions import Prediction
from multitask.inference.writers import json_line
from multitask.serving.batcher import Batcher, Item
from multitask.serving.limits import Limits
from multitask.serving.worker import Failure, Worker

if TYPE_CHECKING:
    from multitask.inference.predictor import Predictor


Load = Callable[[str], Callable[[], "Predictor"]]  # a folder's name → what loads it, in another process


class Service:
    """The model of the folder `name`, computed by its Worker. Create it in the server's event loop.

    `predict`, `embed` and `see` raise Busy, RequestTooLarge and WorkerEnded."""

    def __init__(self, name: str, engine: Worker, limits: Limits):
        self.name, self.engine, self.limits = name, engine, limits
        self.labels = engine.labels()
        self.batcher = Batcher(engine.run, limits)

    async def predict(self, rows: Sequence[Row]) -> list[bytes]:
        """A line of JSON for each, as `task_5.py predict` writes it."""
        return [
            found if isinstance(found, bytes) else json_line(found, None).strip()
            for found in await self._ask("predict", rows)
        ]

    async def embed(self, rows: Sequence[Row]) -> list[np.ndarray | UnreadableRow]:
        """Each row's embedding (D,), or an UnreadableRow that says why there is none."""
        return await self._ask("embed", rows)

    async def see(self, rows: Sequence[Row]) -> list[tuple[Row, Prediction | None]]:
        """Each row with its prediction, words and embedding included. A row without one is an UnreadableRow
        that says why, with None."""
        return [
            (found, None) if isinstance(found, UnreadableRow) else (row, found)
            for row, found in zip(rows, await self._ask("see", rows))
        ]

    async def close(self) -> None:
        """Answer the accepted requests, then end the model's process."""
        await self.batcher.drain()
        await asyncio.to_thread(self.engine.close)

    async def _ask(self, kind: str, rows: Sequence[Row]) -> list[Any]:
        readable = [row for row in rows if isinstance(row, Example)]
        found = iter(await self.batcher.submit([Item(kind, row) for row in readable]))
        answers = [next(found) if isinstance(row, Example) else row for row in rows]
        return [UnreadableRow(each.reason) if isinstance(each, Failure) else each for each in answers]


class Models:
    """The served model, if any, and other models to compare it with; at most one of those is loaded."""

    def __init__(
        self,
        main: Service | None,
        names: Sequence[str],
        load: Load,
        limits: Limits,
    ):
        self.main, self.names, self.load, self.limits = main, list(names), load, limits
        self.other: Service | None = None
        self.lock = asyncio.Lock()

    async def open(self, name: str) -> Service:
        """The model `name`, loaded if needed. Raises InputError if it is unknown or can't be loaded."""
        async with self.lock:
            if self.other and self.other.name == name and self.other.engine.process.is_alive():
                return self.other
            if name not in self.names:
                raise InputError(f"{name} is none of the models that can be compared with")
            if self.other:
                left, self.other = self.other, None
                await left.close()
            engine = Worker(self.load(name))
            try:
                await asyncio.to_thread(engine.labels)
            except BaseException:
                await asyncio.to_thread(engine.close)
                raise
            self.other = Service(name, engine, self.limits)
            return self.other

    async def drain(self) -> None:
        """Refuse new requests and answer the accepted ones."""
        await asyncio.gather(*(each.batcher.drain() for each in (self.main, self.other) if each))
