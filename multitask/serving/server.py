"""Builds the server from its parts, and stops it: accepted requests are answered first."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from itertools import islice
from types import FrameType
from typing import Any

import uvicorn
from starlette.middleware.trustedhost import TrustedHostMiddleware

from multitask.common.errors import InputError
from multitask.data.examples import Example
from multitask.inference.predictor import Predictor
from multitask.serving.address import is_loopback, url_of
from multitask.serving.api import PATHS, BodyLimit, application
from multitask.serving.limits import Limits
from multitask.serving.metrics import Metrics
from multitask.serving.page import gradio_app
from multitask.serving.page.controller import PageController
from multitask.serving.page.neighbours import NearestSentences, training_sentences
from multitask.serving.service import Models, Service
from multitask.serving.worker import Worker, WorkerEnded

logger = logging.getLogger(__name__)

_STOP_SECONDS = 4.0  # to answer accepted requests; Limits.waiting_cost is chosen to need less
_CLOSE_SECONDS = 0.5  # to send what is left; the page's event streams have no end
_MAX_SENTENCES = 20_000  # of the training corpus, for the nearest sentences
_EXAMPLES = 6


async def run(
    name: str | None,
    worker: Worker | None,
    compare: Sequence[str],
    listener: socket.socket,
    limits: Limits,
    load: Callable[[str], Predictor],
) -> None:
    """Serve until a signal; the arguments are those of `serve`, and `load` gives the models to compare with.
    Raises WorkerEnded if `worker` ends first."""
    main = Service(name, worker, limits) if name and worker else None
    models = Models(main, compare, limits, load)
    sentences = _sentences(name) if name else []
    neighbours = NearestSentences(sentences) if sentences else None
    metrics = Metrics(PATHS, models)
    app = application(models, limits, metrics, url_of(listener))
    controller = PageController(models, neighbours, limits)
    gradio_app.mount(app, gradio_app.build(controller, _examples(sentences)), controller, limits)
    guarded = metrics.count_requests(BodyLimit(app, PATHS, limits))
    if is_loopback(listener):  # any other host name comes from another site's page (DNS rebinding)
        guarded = TrustedHostMiddleware(guarded, ["localhost", "127.0.0.1", "[::1]", "::1"])
    server = Server(guarded, models, listener, limits)
    filling = asyncio.create_task(neighbours.fill(main)) if neighbours and main else None
    if worker:
        asyncio.get_running_loop().add_reader(worker.process.sentinel, server.stop, worker)
    try:
        await server.serve([listener])
    finally:
        if filling:
            filling.cancel()
        if models.other:  # it ignores signals: without this, exit would wait for it
            await asyncio.to_thread(models.other.worker.close)
    if server.failure:
        raise server.failure


class Server(uvicorn.Server):
    """Prints its address when it starts, and answers the accepted requests before it stops."""

    def __init__(self, app: Any, models: Models, listener: socket.socket, limits: Limits):
        config = uvicorn.Config(
            app,
            loop="none",
            http="httptools",
            ws="none",
            lifespan="on",
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=limits.connections,
        )
        super().__init__(config)
        self.models, self.listener = models, listener
        self.failure: WorkerEnded | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        url = url_of(self.listener)
        print(f"Page: {url}/  API: {url}/docs", flush=True)

    def stop(self, worker: Worker) -> None:
        """Stop because the worker's process has ended."""
        self.failure = worker.ending()
        asyncio.get_running_loop().remove_reader(worker.process.sentinel)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self.models.drain()
        except TimeoutError:
            logger.warning("stopped with requests that were not answered in time")
        # only endless streams and incomplete requests are left: cutting them off is no error
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self.config.timeout_graceful_shutdown = _CLOSE_SECONDS  # type: ignore[assignment]  # a float works
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; a second Ctrl-C does not wait. The base class would raise the signal again afterwards."""
        self.force_exit = self.force_exit or (self.should_exit and sig == signal.SIGINT)
        self.should_exit = True


def _sentences(name: str) -> list[Example]:
    try:
        return list(islice(training_sentences(name), _MAX_SENTENCES))
    except InputError as reason:
        logger.warning(f"no nearest sentences on the page: {str(reason).splitlines()[0]}")
        return []


def _examples(sentences: Sequence[Example]) -> list[str]:
    """Short sentences to try: one of each class in turn."""
    by_class: dict[str | None, list[str]] = {}
    for row in sentences:
        if row.text and 20 <= len(row.text) <= 120:
            by_class.setdefault(row.label, []).append(row.text)
    turns = zip(*(texts[:_EXAMPLES] for texts in by_class.values()))
    return [text for texts in turns for text in texts][:_EXAMPLES]
