"""Starts a server: checks packages and address, loads the model in its own process.

The server's libraries are imported meanwhile, not at the top of this module."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from multitask.common.errors import require_packages
from multitask.serving.address import listen
from multitask.serving.limits import Limits
from multitask.serving.worker import Worker, load_predictor

_WEB = ("fastapi", "fastapi_offline", "gradio", "httptools", "uvicorn", "uvloop")


def serve(
    name: str | None,
    compare: Sequence[str] = (),
    host: str = "127.0.0.1",
    port: int = 7860,
    limits: Limits | None = None,
    accuracy: float | None = None,
    precision: float | None = None,
) -> None:
    """Serve a model until SIGINT or SIGTERM.

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
        WorkerEnded: the model's process ended first."""
    require_packages((*_WEB, "orjson", "prometheus_client"), "the server", "requirements-demo.txt")
    load = partial(load_predictor, accuracy=accuracy, precision=precision)
    with listen(host, port) as listener:
        worker = Worker(partial(load, name)) if name else None
        try:
            import uvloop

            from multitask.serving.server import run

            if worker:
                worker.labels()
            uvloop.run(run(name, worker, compare, listener, limits or Limits(), load))
        finally:
            if worker:
                worker.close()
