"""The address that a server listens on, and those of its clients."""

import logging
import socket
from ipaddress import IPv6Address, ip_address
from typing import Any

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


def client_of(peer: Any) -> str:
    """The client of a socket's address: an IPv4 address, or the network of an IPv6 address (its first half:
    a single host may use all of its second half)."""
    if not isinstance(peer, tuple):
        return ""
    try:
        address = ip_address(str(peer[0]).partition("%")[0])
    except ValueError:
        return str(peer[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return str(IPv6Address(int(address) >> 64 << 64))
    return str(getattr(address, "ipv4_mapped", None) or address)
