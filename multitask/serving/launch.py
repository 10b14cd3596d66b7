"""Starts a server: checks packages and address, loads the model in its own process.

The server's libraries are imported meanwhile, not at the top of this module."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from multitask.common.errors import require_packages
from multitask.serving.address import listen
from multitask.serving.limits import Limits
from multitask.serving.worker import ENDING, Worker, load_predictor

_WEB = ("fastapi", "fastapi_offline", "gradio", "httptools", "uvicorn")
_LOOP = () if sys.platform == "win32" else ("uvloop",)  # which Windows lacks
_TEMPORARY = "GRADIO_TEMP_DIR"  # the environment variable in which gradio looks for its folder
_UPLOADS = "multitask-uploads"


def serve(
    name: str | None,
    compare: Sequence[str] = (),
    host: str = "127.0.0.1",
    port: int = 7860,
    limits: Limits | None = None,
    accuracy: float | None = None,
    precision: float | None = None,
) -> None:
    """Serve a model until SIGINT, SIGTERM or SIGHUP.

    Args:
        name: the model's folder; None serves a page that explains how to train a model.
        compare: folders of models that the page offers for comparison.
        host, port: the address; port 0 is a free one.
        limits: of requests, batches and the queue.
        accuracy, precision: wanted shares of right classes and entities among those that are given, by every
            model: see `Predictor.answer_only_if`.

    Raises:
        InputError: a folder or the address can't be used, a package is missing, or the model has no threshold
            for a share.
        WorkerEnded: the model's process ended, and so did those that replaced it."""
    require_packages((*_WEB, *_LOOP, "orjson", "prometheus_client"), "the server", "requirements-demo.txt")
    load = partial(load_predictor, accuracy=accuracy, precision=precision)
    with listen(host, port) as listener, upload_folder() as uploads:
        worker = Worker(partial(load, name), uploads) if name else None
        try:
            if sys.platform == "win32":
                from asyncio import run as run_loop
            else:
                from uvloop import run as run_loop

            from multitask.serving.server import run

            if worker:
                worker.labels()
            run_loop(run(name, worker, compare, listener, limits or Limits(), load, uploads))
        finally:
            if worker:
                worker.close()


@contextmanager
def upload_folder() -> Iterator[str]:
    """The path of a new private folder for uploads, which gradio uses too. It does not exist yet, and is
    removed at the end, also if a signal ends the process. Removes those of servers that were killed."""
    before, machine = os.environ.get(_TEMPORARY), platform.node()
    root = Path(before or tempfile.gettempdir()).resolve()
    for path in root.glob(f"{_UPLOADS}-{machine}-*-*"):
        if not _runs(path.name.split("-")[-2]):
            shutil.rmtree(path, ignore_errors=True)  # another user's can't be removed
    folder = str(root / f"{_UPLOADS}-{machine}-{os.getpid()}-{secrets.token_hex(8)}")
    os.environ[_TEMPORARY] = folder
    handlers = {one: signal.getsignal(one) for one in ENDING if signal.getsignal(one) is signal.SIG_DFL}
    for number in handlers:
        signal.signal(number, _exit)
    try:
        yield folder
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.environ.pop(_TEMPORARY)
        if before is not None:
            os.environ[_TEMPORARY] = before
        shutil.rmtree(folder, ignore_errors=True)


def _exit(number: int, frame: object) -> None:
    sys.exit(128 + number)


def _runs(number: str) -> bool:
    """Whether a process of this number may be running."""
    if os.name != "posix" or not number.isdecimal():  # elsewhere, kill may do what it says
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
