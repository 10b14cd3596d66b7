"""Rows of many requests, joined into batches: a model reads thirty sentences in the time of five.

The delayed batching of Clipper (Crankshaw et al. 2017): a batch waits a bounded time for rows to fill it, and
what has come while a batch was read is the next one. Everything here belongs to one event loop."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from multitask.data.rows import Example
from multitask.serving.limits import Limits, estimate_tokens


class Item(NamedTuple):
    """A row and the kind of answer it needs: one of worker.KINDS."""

    kind: str
    row: Example


class Busy(Exception):
    """Too many rows are waiting; try again after `seconds`."""

    def __init__(self, message: str, seconds: int = 1):
        super().__init__(message)
        self.seconds = seconds


class RequestTooLarge(ValueError):
    """A request larger than the whole queue: it can never be accepted."""


class _Request:
    def __init__(self, items: Sequence[Item], costs: list[int], now: float):
        self.items, self.costs, self.arrived = items, costs, now
        self.taken, self.missing = 0, len(items)
        self.answers: list[Any] = [None] * len(items)
        self.done = asyncio.get_running_loop().create_future()


class Batcher:
    """`run` answers a batch: a list as long as it. Rows of several requests take turns, so that a long one
    does not keep the others waiting."""

    def __init__(self, run: Callable[[list[Item]], Awaitable[list[Any]]], limits: Limits):
        self.run, self.limits = run, limits
        self.requests: deque[_Request] = deque()
        self.rows = self.cost = 0  # accepted and not yet answered
        self.batches = self.batched = 0  # since the start, and their rows
        self.queued_rows = self.queued_cost = 0  # in no batch yet
        self.closing = False
        self._some, self._full = asyncio.Event(), asyncio.Event()
        self._speed = 0.0  # cost a second, of late
        self._task = asyncio.create_task(self._work())

    async def submit(self, items: Sequence[Item]) -> list[Any]:
        """The answers, in order. Raises Busy, or RequestTooLarge if even an empty queue cannot hold it."""
        costs = [estimate_tokens(item.row) for item in items]
        total, most = sum(costs), self.limits.waiting_cost
        if total > most:
            raise RequestTooLarge(
                f"about {total:,} tokens in one request, where {most:,} are taken; send fewer texts at once"
            )
        if self.closing:
            raise Busy("the server is stopping")
        if self.cost + total > most:
            seconds = self.cost / self._speed if self._speed else 1
            raise Busy("busy: too many texts are waiting; try again in a moment", math.ceil(seconds))
        if not items:
            return []
        request = _Request(items, costs, asyncio.get_running_loop().time())
        self.requests.append(request)
        self.rows += len(items)
        self.cost += total
        self.queued_rows += len(items)
        self.queued_cost += total
        self._some.set()
        if self._enough():
            self._full.set()
        return await request.done

    async def drain(self) -> None:
        """Refuse new requests; return when all accepted ones are answered."""
        self.closing = True
        self._full.set()
        while self.rows:
            await asyncio.sleep(0.01)
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    def _enough(self) -> bool:
        return self.queued_rows >= self.limits.batch_rows or self.queued_cost >= self.limits.batch_cost

    async def _work(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await self._some.wait()
            left = self.requests[0].arrived + self.limits.batch_wait - clock()
            if left > 0 and not self._enough() and not self.closing:
                self._full.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._full.wait(), left)
            batch, total = self._take()
            begun = clock()
            try:
                answers = await self.run([request.items[at] for request, at in batch])
            except Exception as error:
                self._fail(batch, error)
            else:
                self._give(batch, answers)
                self._speed = 0.8 * self._speed + 0.2 * total / max(clock() - begun, 1e-6)
            self.batches += 1
            self.batched += len(batch)
            self.rows -= len(batch)
            self.cost -= total

    def _take(self) -> tuple[list[tuple[_Request, int]], int]:
        """The next batch and its cost. Requests take turns, one row each, until the batch is full."""
        batch: list[tuple[_Request, int]] = []
        total = 0
        while self.requests and len(batch) < self.limits.batch_rows:
            request = self.requests[0]
            price = request.costs[request.taken]
            if batch and total + price > self.limits.batch_cost:
                break
            batch.append((request, request.taken))
            total += price
            request.taken += 1
            if request.taken == len(request.items):
                self.requests.popleft()
            else:
                self.requests.rotate(-1)
        self.queued_rows -= len(batch)
        self.queued_cost -= total
        if not self.requests:
            self._some.clear()
        return batch, total

    def _give(self, batch: list[tuple[_Request, int]], answers: list[Any]) -> None:
        for (request, at), answer in zip(batch, answers, strict=True):
            request.answers[at] = answer
            request.missing -= 1
            if request.missing == 0 and not request.done.done():
                request.done.set_result(request.answers)

    def _fail(self, batch: list[tuple[_Request, int]], error: Exception) -> None:
        for request, _ in batch:
            if not request.done.done():
                request.done.set_exception(error)
