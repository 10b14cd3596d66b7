"""The address that a server listens on."""

import logging
import socket

from multitask.common.errors import InputError

logger = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """A socket that holds the address. Raises InputError."""
    try:
        if not 0 <= port < 1 << 16:  # else its lowest bits would count
            raise OSError(None, "a port is a number from 0 to 65535")
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise InputError(
            f"can't listen on {host}, port {port}: {error.strerror}; --host and --port name another"
        ) from None
    if not is_loopback(listener):
        logger.warning(f"listening on {host}: everyone who reaches this machine there can ask the model")
    return listener


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine reaches a socket."""
    name = listener.getsockname()[0]
    return name.startswith("127.") or name == "::1"


def url_of(listener: socket.socket) -> str:
    """How it is asked: http://host:port."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
