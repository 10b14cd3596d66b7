"""The server's process, once its libraries are imported: what it is made of, and how it stops."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import uvicorn
import uvloop
from starlette.middleware.trustedhost import TrustedHostMiddleware

from multitask.common.errors import InputError
from multitask.data.rows import Example
from multitask.serving.address import is_loopback, url_of
from multitask.serving.api import PATHS, BodyLimit, application
from multitask.serving.limits import Limits
from multitask.serving.metrics import Metrics
from multitask.serving.page import gradio_app
from multitask.serving.page.controller import PageController
from multitask.serving.page.neighbours import NearestSentences, training_sentences
from multitask.serving.service import Load, Models, Service
from multitask.serving.worker import Worker, WorkerEnded

logger = logging.getLogger(__name__)

_STOP_SECONDS = 4.0  # for what was accepted, which Limits.waiting_cost lets take less
_CLOSE_SECONDS = 0.5  # for what is still sent, and for the page's streams, which have no end
_SENTENCES, _EXAMPLES = 20_000, 6  # of the training corpus: that can be found, that are offered


def run(
    name: str | None,
    engine: Worker | None,
    compare: Sequence[str],
    load: Load,
    listener: socket.socket,
    limits: Limits,
) -> None:
    """Serve until a signal. Raises WorkerEnded if the model's process ends first."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(name, engine, compare, load, listener, limits))


async def _run(
    name: str | None,
    engine: Worker | None,
    compare: Sequence[str],
    load: Load,
    listener: socket.socket,
    limits: Limits,
) -> None:
    models = Models(Service(name, engine, limits) if name and engine else None, compare, load, limits)
    sentences = _sentences(name) if name else []
    neighbours = NearestSentences(sentences) if sentences else None
    metrics = Metrics(PATHS, models)
    app = application(models, limits, metrics, url_of(listener))
    controller = PageController(models, neighbours, limits)
    gradio_app.mount(app, gradio_app.build(controller, offered(sentences)), controller, limits)
    guarded = metrics.around(BodyLimit(app, PATHS, limits))
    if is_loopback(listener):  # other names lead here from pages of other sites only (DNS rebinding)
        guarded = TrustedHostMiddleware(guarded, ["localhost", "127.0.0.1", "[::1]", "::1"])
    server = Server(guarded, models, listener, limits)
    main = models.main
    filling = asyncio.create_task(neighbours.fill(main)) if neighbours and main else None
    if engine:
        asyncio.get_running_loop().add_reader(engine.process.sentinel, server.stop)
    try:
        await server.serve([listener])
    finally:
        if filling:
            filling.cancel()
        if models.other:  # its process leaves signals to this one, which would wait for it
            await asyncio.to_thread(models.other.engine.close)
    if engine and server.broken:
        raise WorkerEnded(server.broken)


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
        self.broken = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        url = url_of(self.listener)
        print(f"Page: {url}/  API: {url}/docs", flush=True)

    def stop(self) -> None:
        """The model's process is gone: there is nothing left to serve."""
        assert self.models.main is not None  # only a worker's end calls this
        self.broken = self.models.main.engine.why()
        asyncio.get_running_loop().remove_reader(self.models.main.engine.process.sentinel)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self.models.drain()
        except TimeoutError:
            logger.warning("stopped with requests that were not answered in time")
        # what is cut off now has no end of its own: no error, and nothing to say
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self.config.timeout_graceful_shutdown = _CLOSE_SECONDS  # type: ignore[assignment]  # a float works
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """A signal is how a server ends well: unlike the base class's, this does not raise it again."""
        before = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _sentences(name: str) -> list[Example]:
    try:
        return list(islice(training_sentences(name), _SENTENCES))
    except InputError as reason:
        logger.warning(f"no neighbours on the page: {str(reason).splitlines()[0]}")
        return []


def offered(sentences: Sequence[Example], count: int = _EXAMPLES) -> list[str]:
    """Sentences to click: one of each class in turn, of a length that is read at a glance."""
    by_class: dict[str | None, list[str]] = {}
    for row in sentences:
        if row.text and 20 <= len(row.text) <= 120:
            by_class.setdefault(row.label, []).append(row.text)
    turns = [text for texts in zip(*(texts[:count] for texts in by_class.values())) for text in texts]
    return turns[:count]
