"""The address that a server listens on."""

import logging
import socket
from ipaddress import ip_address

from multitask.common.errors import InputError

logger = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address. Raises InputError if that fails."""
    try:
        if not 0 <= port < 1 << 16:  # bind would take its lowest 16 bits
            raise OSError(None, "a port is a number from 0 to 65535")
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise InputError(
            f"can't listen on {host}, port {port}: {error.strerror}; choose others with --host and --port"
        ) from None
    if not is_loopback(listener):
        logger.warning(f"listening on {host}: everyone who can reach this address can use the model")
    return listener


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine can reach the socket."""
    return ip_address(listener.getsockname()[0]).is_loopback


def url_of(listener: socket.socket) -> str:
    """http://host:port of the socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
