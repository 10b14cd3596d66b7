"""A server from its start to its end: the model's process, the address, what is missing. Light: the libraries
of the server are imported while the model is loaded in its own process."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec

from multitask.engine import Engine
from multitask.errors import InputError, say
from multitask.limits import Limits
from multitask.loading import load_predictor

_NEEDED = ("fastapi", "fastapi_offline", "gradio", "httptools", "prometheus_client", "uvicorn", "uvloop")


def serve(
    name: str | None,
    model_class: Callable[[], type],
    compare: Sequence[str] = (),
    host: str = "127.0.0.1",
    port: int = 7860,
    limits: Limits | None = None,
) -> None:
    """Serve the model of a folder until SIGINT or SIGTERM; without one, a page that says how to make it.

    `compare` names other folders that the page offers, `model_class` is as `load_predictor` wants it. Port 0
    is a free one. Raises InputError for a folder or an address that can't be used."""
    if missing := [library for library in _NEEDED if find_spec(library) is None]:
        names = ", ".join(missing)
        raise InputError(f"the server needs {names}, not installed: pip install -r requirements-demo.txt")
    load = partial(partial, load_predictor, model_class=model_class)
    with listening(host, port) as listener:
        engine = Engine(load(name)) if name else None
        try:
            from multitask.web_server import run

            if engine:
                engine.labels()
            run(name, engine, compare, load, listener, limits or Limits())
        finally:
            if engine:
                engine.close()


def listening(host: str, port: int) -> socket.socket:
    """A socket that holds the address. Raises InputError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(
            f"can't listen on {host}, port {port}: {why}; --host and --port name another"
        ) from None
    if not is_loopback(listener):
        say(f"listening on {host}: everyone who reaches this machine there can ask the model")
    return listener


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine reaches a socket."""
    name = listener.getsockname()[0]
    return name.startswith("127.") or name == "::1"
