"""Connections with deadlines and limits for all that a client sends, or does not read.

uvicorn limits neither the time nor the size of a request's head, and never closes a connection on which
nothing comes. Here slow clients lose: each connection that waits for its client has a deadline. When there
are too many connections, the one that has waited longest makes room for the new one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from http import HTTPStatus
from math import inf
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from multitask.serving.address import client_of
from multitask.serving.limits import Limits

_PIECE = 1 << 13  # bytes of one client that are parsed at once
_SWEEP_SECONDS = 0.25  # between two looks for deadlines that have passed


class Connections:
    """All open connections of a server. Create it, and call `watch`, in the server's event loop."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.by_client: dict[str, set[Connection]] = {}

    def all(self) -> list[Connection]:
        return [connection for same in self.by_client.values() for connection in same]

    def admit(self, connection: Connection) -> bool:
        """Add a connection, if need be in the place of another one → whether there was room for it."""
        same = self.by_client.get(connection.host, set())
        if len(same) >= self.limits.client_connections and not _close_one(same):
            return False
        connections = self.all()
        if len(connections) >= self.limits.connections and not _close_one(connections):
            return False
        self.by_client.setdefault(connection.host, set()).add(connection)
        return True

    def remove(self, connection: Connection) -> None:
        same = self.by_client.get(connection.host, set())
        same.discard(connection)
        if not same:
            self.by_client.pop(connection.host, None)

    async def watch(self) -> None:
        """End connections whose deadline has passed or whose client does not read."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = asyncio.get_running_loop().time()
            connections = self.all()
            for connection in connections:
                connection.check(now)
            self.limit_unsent(connections)

    def limit_unsent(self, connections: Iterable[Connection]) -> None:
        """Abort the connections with the most unread bytes while all together hold too many."""
        unsent = sorted((connection.unsent(), id(connection), connection) for connection in connections)
        total = sum(size for size, *_ in unsent)
        while total > self.limits.unsent_bytes:
            size, _, connection = unsent.pop()
            connection.transport.abort()
            total -= size


def _close_one(connections: Iterable[Connection]) -> bool:
    """Abort the connection that has waited longest for its client, or else the oldest stream → whether there
    was one. Connections without any request go first."""
    waiting = [connection for connection in connections if connection.deadline < inf]
    streams = [connection for connection in connections if connection.is_stream()]
    if not (waiting or streams):
        return False
    closed = min(waiting or streams, key=lambda connection: (connection.cycle is not None, connection.since))
    closed.connections_of_server.remove(closed)
    closed.transport.abort()
    return True


class Connection(HttpToolsProtocol):
    """uvicorn's connection with the deadlines and limits of `connections_of_server.limits`.

    Attributes:
        deadline: loop time by which the client must have gone on; inf while the server has to answer.
        since: loop time from which the server has waited for the client last."""

    def __init__(self, connections_of_server: Connections, **options: Any):
        super().__init__(**options)
        self.connections_of_server, self.limits = connections_of_server, connections_of_server.limits
        self.host, self.since, self.deadline = "", 0.0, inf
        self._read_by, self._unread = inf, 0  # loop time by which some of `_unread` bytes must be read
        self._is_receiving = self._is_new_message = self._refused = False  # a request, or a part of it
        self._in_head = True
        self._bytes = self._headers = 0  # of the head, or of the body, that is being received
        self._pending = memoryview(b"")  # what was received and is not parsed
        self._problem: tuple[int, str] | None = None  # that ended the parsing

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.host = client_of(transport.get_extra_info("peername"))
        self._expect(self.limits.head_seconds)
        if not self.connections_of_server.admit(self):
            self._refuse(503, "too many connections; try again in a moment")

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections_of_server.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._pending = memoryview(data)
        self._parse_piece()

    def _parse_piece(self) -> None:
        """Parse the next piece; the other clients get their turn before the next one. Nothing is received
        meanwhile."""
        if self._refused or self.transport.is_closing():
            return
        piece, self._pending = self._pending[:_PIECE], self._pending[_PIECE:]
        self._is_new_message = False
        super().data_received(piece)  # type: ignore[arg-type]  # the parser takes any buffer
        if not self._is_new_message:
            self._bytes += len(piece)
        if self._in_head and self._bytes > self.limits.head_bytes:
            self._refuse(431, f"more than {self.limits.head_bytes:,} bytes of headers")
        elif self._bytes > self.limits.message_bytes:
            self._refuse(413, f"more than {self.limits.message_bytes:,} bytes")
        elif self._pending:
            self.transport.pause_reading()
            self.loop.call_soon(self._parse_piece)
        elif not self.flow.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    # callbacks of the parser

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_receiving, self._is_new_message, self._bytes = True, True, 0
        if len(self.pipeline) >= self.limits.pipelined:
            self._stop(503, f"more than {self.limits.pipelined} requests without waiting for their answers")
        if self.cycle is None or self.cycle.response_complete:
            self._expect(self.limits.head_seconds)

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self.limits.url_bytes:
            self._stop(414, f"the URL has more than {self.limits.url_bytes:,} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers += 1
        if self._headers > self.limits.headers:
            self._stop(431, f"more than {self.limits.headers} headers")
        if len(name) + len(value) > self.limits.header_bytes:
            self._stop(431, f"a header with more than {self.limits.header_bytes:,} bytes")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head, self._is_new_message, self._bytes = False, True, 0
        # a second more than the application has, which answers with 408
        self._expect(self.limits.body_seconds + 1)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._is_receiving, self._in_head, self._is_new_message = False, True, True
        self._bytes = self._headers = 0
        if self.cycle.response_complete:
            self._expect(self.limits.idle_seconds)
        else:
            self.deadline = inf

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._expect(self.limits.send_seconds)
        elif self.pipeline or not self.cycle.response_complete:
            self.deadline = inf
        elif self._in_head and self.deadline == inf:  # else the rest of the request has its deadline already
            self._expect(self.limits.idle_seconds)

    # the client does not read

    def pause_writing(self) -> None:
        super().pause_writing()
        self._read_by, self._unread = self.loop.time() + self.limits.send_seconds, self.unsent()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read_by = inf

    def unsent(self) -> int:
        """Bytes of answers that the client has not read."""
        return self.transport.get_write_buffer_size()

    def is_stream(self) -> bool:
        """Whether it is in the middle of an answer, such as the page's events, which have no end."""
        return self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete

    def check(self, now: float) -> None:
        """End the connection if its client is too slow."""
        if now > self._read_by:
            unsent = self.unsent()
            if unsent > self._unread - self.limits.send_bytes:
                self.transport.abort()
            self._read_by, self._unread = now + self.limits.send_seconds, unsent
        elif now > self.deadline:
            if self._is_receiving:
                self._refuse(408, "the request did not arrive in time")
            else:
                self.transport.abort()

    def _expect(self, seconds: float) -> None:
        self.since = self.loop.time()
        self.deadline = self.since + seconds

    def _stop(self, status: int, reason: str) -> None:
        """End the parsing from one of its callbacks."""
        self._problem = status, reason
        raise ValueError(reason)

    def send_400_response(self, msg: str) -> None:
        self._refuse(*(self._problem or (400, "not an HTTP request")))

    def _refuse(self, status: int, reason: str) -> None:
        """Answer with a problem, if no other answer is being sent, and close the connection."""
        if self._refused:
            self.transport.abort()
            return
        self._refused = True
        # the request whose body is arriving, if its answer is the next one
        is_own = not (self._in_head or self.pipeline or self.cycle.response_started)
        if self.cycle is None or self.cycle.response_complete or is_own:
            body = json.dumps({"detail": reason}).encode()
            head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
            head += "Retry-After: 1\r\n" if status == 503 else ""
            head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            self.transport.write(head.encode() + body)
        self.transport.close()
        self._expect(self.limits.send_seconds)
