"""Builds the server from its parts, and stops it: accepted requests are answered first."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.middleware.trustedhost import TrustedHostMiddleware

from multitask.common.errors import InputError
from multitask.data.examples import Example
from multitask.inference.predictor import Predictor
from multitask.serving.address import is_loopback, url_of
from multitask.serving.api import PATHS, application
from multitask.serving.connections import Connection, Connections
from multitask.serving.limits import Limits
from multitask.serving.metrics import Metrics
from multitask.serving.page import gradio_app
from multitask.serving.page.controller import PageController
from multitask.serving.page.neighbours import NearestSentences, training_sentences
from multitask.serving.request_checks import BodyLimit, SameOrigin
from multitask.serving.service import Models, Service
from multitask.serving.worker import ENDING, Worker

logger = logging.getLogger(__name__)

_STOP_SECONDS = 4.0  # to answer accepted requests; Limits.waiting_cost is chosen to need less
_CLOSE_SECONDS = 0.5  # to send what is left; the page's event streams have no end
_MAX_SENTENCES = 20_000  # of the training corpus, for the nearest sentences
_EXAMPLES = 6
SWITCH_SECONDS = 0.001  # for which a thread may keep the event loop waiting (Python: 0.005)


async def run(
    name: str | None,
    worker: Worker | None,
    compare: Sequence[str],
    listener: socket.socket,
    limits: Limits,
    load: Callable[[str], Predictor],
    uploads: str,
) -> None:
    """Serve until a signal; the arguments are those of `serve`, `load` gives the models to compare with, and
    `uploads` is a folder for uploaded files.

    Raises WorkerEnded, or InputError, if the model's process ends and can't be restarted."""
    sys.setswitchinterval(SWITCH_SECONDS)
    os.makedirs(Path(uploads).parent, exist_ok=True)
    os.mkdir(uploads, 0o700)  # gradio would let everyone read it
    main = Service(name, worker, limits) if name and worker else None
    models = Models(main, compare, limits, load)
    sentences = _sentences(name) if name else []
    neighbours = NearestSentences(sentences) if sentences else None
    metrics = Metrics(PATHS, models)
    app = application(models, limits, metrics, url_of(listener))
    controller = PageController(models, neighbours, limits)
    page = gradio_app.build(controller, _examples(sentences))
    gradio_app.mount(app, page, controller, uploads if main else None, limits)
    guarded: Any = SameOrigin(metrics.count_requests(BodyLimit(app, PATHS, limits)))
    if is_loopback(listener):  # any other host name comes from another site's page (DNS rebinding)
        guarded = TrustedHostMiddleware(guarded, ["localhost", "127.0.0.1", "[::1]", "::1"])
    connections = Connections(limits)
    server = Server(guarded, models, listener, connections)
    background = [asyncio.create_task(connections.watch())]
    if main:
        main.engine.failed = server.stop
    if neighbours and main:
        background.append(asyncio.create_task(neighbours.fill(main)))
    try:
        await server.serve([listener])
    finally:
        for task in background:
            task.cancel()
        shutil.rmtree(uploads, ignore_errors=True)  # before the model's process ends, which would do it
        await models.end()  # they ignore signals: without this, exit would wait for them
    if server.failure:
        raise server.failure


class Server(uvicorn.Server):
    """Prints its address when it starts, and answers the accepted requests before it stops."""

    def __init__(self, app: Any, models: Models, listener: socket.socket, connections: Connections):
        config = uvicorn.Config(
            app,
            loop="none",
            http=partial(Connection, connections),  # type: ignore[arg-type]  # is called as a class
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=connections.limits.idle_seconds,
        )
        super().__init__(config)
        for name in ("uvicorn.error", "asyncio"):
            logging.getLogger(name).addFilter(_in_one_line)
        self.models, self.listener = models, listener
        self.failure: Exception | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        url = url_of(self.listener)
        print(f"Page: {url}/  API: {url}/docs", flush=True)

    def stop(self, failure: Exception) -> None:
        """Stop because the model can't be restarted."""
        self.failure, self.should_exit = failure, True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at SIGHUP too, unless it is ignored as by nohup."""
        with super().capture_signals():
            before = {one: signal.getsignal(one) for one in ENDING}
            for number, handler in before.items():
                if handler is not signal.SIG_IGN:
                    signal.signal(number, self.handle_exit)
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

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


def _in_one_line(record: logging.LogRecord) -> bool:
    """A filter for a logger: an exception takes one line, without its traceback."""
    if record.exc_info and (error := record.exc_info[1]):
        text = f"{record.getMessage().strip()}: {type(error).__name__}: {error}"
        record.msg, record.args, record.exc_info = " ".join(text.split()), (), None
    return True


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
