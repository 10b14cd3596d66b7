"""The process of a model, watched: a batch has a deadline, and a process that ends or hangs is replaced."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from multitask.common.errors import InputError
from multitask.serving.batcher import Item
from multitask.serving.limits import Limits
from multitask.serving.worker import Worker, WorkerEnded

logger = logging.getLogger(__name__)


class Engine:
    """Runs batches in a Worker that is loaded. Create it in the server's event loop.

    Attributes:
        problem: why there are no answers now; None if there are.
        failed: called with the error when the model can't be restarted, or was restarted too often."""

    def __init__(self, worker: Worker, limits: Limits):
        self.worker, self.limits = worker, limits
        self.problem: str | None = None
        self.has_failed = False
        self.failed: Callable[[Exception], object] = _ignore
        self._turn = asyncio.Lock()  # of the pipe
        self._since: float | None = None  # loop time at which the exchange in progress began
        self._restarts: deque[float] = deque()  # loop times
        self._restarting: asyncio.Task[None] | None = None
        self._watching = asyncio.create_task(self._watch())

    async def run(self, items: Sequence[Item]) -> list[Any]:
        """The answer to each item. Raises WorkerEnded if there are none: the model is restarted then."""
        async with self._turn:
            if self.problem:
                raise WorkerEnded(self.problem)
            self._since = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(self.limits.batch_seconds):
                    return await self.worker.run(items)
            except TimeoutError:
                reason = WorkerEnded(f"the model gave no answer for {self.limits.batch_seconds:g} s")
            except WorkerEnded as ended:
                reason = ended
            finally:
                self._since = None
            if self.problem is None:  # else it is being closed
                self.problem = f"{reason}; it is being restarted"
                self._restarting = asyncio.create_task(self._restart(reason))
            raise WorkerEnded(self.problem)

    def unavailable(self) -> str | None:
        """Why the model gives no answers now; None if it does."""
        waited = 0.0 if self._since is None else asyncio.get_running_loop().time() - self._since
        if self.problem is None and waited > self.limits.answer_seconds:
            return f"the model has given no answer for {waited:.0f} s"
        return self.problem

    async def close(self) -> None:
        """End the process. Nothing is restarted any more."""
        tasks = [task for task in (self._watching, self._restarting) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.problem = self.problem or "the server is stopping"
        await asyncio.to_thread(self.worker.close)

    async def _watch(self) -> None:
        """Notice that an idle process has ended or hangs."""
        while True:
            await asyncio.sleep(self.limits.probe_seconds)
            if not self._turn.locked():
                with suppress(WorkerEnded):
                    await self.run([])

    async def _restart(self, reason: Exception) -> None:
        clock = asyncio.get_running_loop().time
        await asyncio.to_thread(self.worker.kill)
        while True:
            while self._restarts and clock() - self._restarts[0] > self.limits.restart_seconds:
                self._restarts.popleft()
            if len(self._restarts) == self.limits.restarts:
                break
            self._restarts.append(clock())
            logger.warning(f"{reason}; restart {len(self._restarts)} of {self.limits.restarts}")
            try:
                self.worker, self.problem = await self._load(), None
            except WorkerEnded as ended:
                reason = ended
            except Exception as refused:  # an InputError; no other one may leave requests without an end
                reason = refused
                break
            else:
                logger.info("the model answers again")
                return
        self.problem, self.has_failed = str(reason), True
        self.failed(reason)

    async def _load(self) -> Worker:
        """A new process with the same model, loaded."""
        worker = self.worker.again()
        try:
            async with asyncio.timeout(self.limits.load_seconds):
                await asyncio.to_thread(worker.labels)
        except BaseException as error:
            worker.kill()
            if isinstance(error, TimeoutError):
                raise WorkerEnded(f"the model did not load within {self.limits.load_seconds:g} s") from None
            raise
        if worker.identity != self.worker.identity:
            worker.kill()
            raise InputError("the model's folder has another model now; start the server again")
        return worker


def _ignore(error: Exception) -> None:
    pass
