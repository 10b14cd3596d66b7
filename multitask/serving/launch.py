"""A server from its start to its end: the model's process, the address, what is missing. Light: the libraries
of the server are imported while the model is loaded in its own process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from multitask.common.errors import require_packages
from multitask.inference.predictor import Predictor
from multitask.serving.address import listen
from multitask.serving.limits import Limits
from multitask.serving.worker import Worker

_WEB = ("fastapi", "fastapi_offline", "gradio", "httptools", "uvicorn", "uvloop")


def serve(
    name: str | None,
    compare: Sequence[str] = (),
    host: str = "127.0.0.1",
    port: int = 7860,
    limits: Limits | None = None,
) -> None:
    """Serve the model of a folder until SIGINT or SIGTERM; without one, a page that says how to make it.

    `compare` names other folders that the page offers. Port 0 is a free one. Raises InputError for a folder
    or an address that can't be used."""
    require_packages((*_WEB, "orjson", "prometheus_client"), "the server", "requirements-demo.txt")
    load = partial(partial, Predictor.from_pretrained)
    with listen(host, port) as listener:
        engine = Worker(load(name)) if name else None
        try:
            from multitask.serving.server import run

            if engine:
                engine.labels()
            run(name, engine, compare, load, listener, limits or Limits())
        finally:
            if engine:
                engine.close()
