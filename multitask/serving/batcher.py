"""Joins the rows of many requests into batches: a model predicts thirty sentences in the time of five.

This is the delayed batching of Clipper (Crankshaw et al. 2017): a batch waits a bounded time for rows to fill
it; rows that come while a batch is computed form the next one. All calls belong to one event loop."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from multitask.data.examples import Example
from multitask.serving.limits import Limits, estimate_tokens


class Item(NamedTuple):
    """A row and the kind of answer it needs: one of worker.KINDS."""

    kind: str
    row: Example


class ServerBusy(Exception):
    """Too many rows are waiting; try again after `retry_seconds`."""

    def __init__(self, message: str, retry_seconds: int = 1):
        super().__init__(message)
        self.retry_seconds = retry_seconds


class RequestTooLarge(ValueError):
    """A request larger than the whole queue: it can never be accepted."""


class _Waiting(NamedTuple):
    item: Item
    cost: int
    deadline: float  # when a batch with this row starts, full or not
    answer: asyncio.Future[Any]


class Batcher:
    """Queues the rows of requests and computes them in batches.

    Args:
        run: computes a batch; returns one answer for each item, in order.
        limits: the size of a batch, how long it waits for rows, and the size of the queue.

    Attributes:
        rows, cost: number and cost of the rows that are accepted and not yet answered.
        batches, batched_rows: number computed since the start.
        closing: whether new requests are refused."""

    def __init__(self, run: Callable[[list[Item]], Awaitable[list[Any]]], limits: Limits):
        self.run, self.limits = run, limits
        self.rows = self.cost = self.batches = self.batched_rows = 0
        self.closing = False
        self._requests: deque[deque[_Waiting]] = deque()  # each request's rows that wait for a batch
        self._changed = asyncio.Event()
        self._speed = 0.0  # cost per second: a moving average over the latest batches
        self._task = asyncio.create_task(self._work())

    async def submit(self, items: Sequence[Item]) -> list[Any]:
        """The answers, in order.

        Raises:
            ServerBusy: the queue is full, or the server is stopping.
            RequestTooLarge: even an empty queue could not hold the request."""
        costs = [estimate_tokens(item.row) for item in items]
        self.check(sum(costs))
        if not items:
            return []
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.limits.batch_wait
        rows = [_Waiting(item, cost, deadline, loop.create_future()) for item, cost in zip(items, costs)]
        self._requests.append(deque(rows))
        self.rows += len(rows)
        self.cost += sum(costs)
        self._changed.set()
        return await asyncio.gather(*(row.answer for row in rows))

    def check(self, cost: int) -> None:
        """Raises what `submit` raises for rows of this cost."""
        limit = self.limits.waiting_cost
        if cost > limit:
            raise RequestTooLarge(
                f"about {cost:,} tokens in one request; at most {limit:,} are accepted: send fewer texts"
            )
        if self.closing:
            raise ServerBusy("the server is stopping")
        if self.cost + cost > limit:
            seconds = self.cost / self._speed if self._speed else 1
            raise ServerBusy("busy: too many texts are waiting; try again in a moment", math.ceil(seconds))

    async def drain(self) -> None:
        """Refuse new requests; return when all accepted ones are answered."""
        self.closing = True
        self._changed.set()
        while self.rows:
            await asyncio.sleep(0.01)
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _work(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await self._wait_for_batch()
            batch = self._next_batch()
            cost, started = sum(row.cost for row in batch), clock()
            try:
                answers = await self.run([row.item for row in batch])
            except Exception as error:
                for row in batch:
                    if not row.answer.done():
                        row.answer.set_exception(error)
            else:
                for row, answer in zip(batch, answers, strict=True):
                    if not row.answer.done():  # the client may be gone
                        row.answer.set_result(answer)
                self._speed = 0.8 * self._speed + 0.2 * cost / max(clock() - started, 1e-6)
            self.batches += 1
            self.batched_rows += len(batch)
            self.rows -= len(batch)
            self.cost -= cost

    async def _wait_for_batch(self) -> None:
        """Wait until a batch is full, or its first row has waited long enough, or the batcher is closing."""
        limits = self.limits
        while not self._requests:
            await self._wait_for_change()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._requests[0][0].deadline):
                # no batch is computed meanwhile: all accepted rows are in the queue
                while self.rows < limits.batch_rows and self.cost < limits.batch_cost and not self.closing:
                    await self._wait_for_change()

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _next_batch(self) -> list[_Waiting]:
        """The rows of the next batch: requests take turns, one row each, so that a long request does not keep
        the others waiting."""
        batch: list[_Waiting] = []
        cost = 0
        while self._requests and len(batch) < self.limits.batch_rows:
            request = self._requests[0]
            if batch and cost + request[0].cost > self.limits.batch_cost:
                break
            batch.append(request.popleft())
            cost += batch[-1].cost
            self._requests.rotate(-1)
            if not request:
                self._requests.pop()
        return batch
