"""Load on an HTTP server of this machine: many clients in one process, each with a connection that it keeps.

A client of the usual libraries costs more than the server that it asks; this one writes bytes that were made
before, and looks for the length of the answer alone."""

import asyncio
import json
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

HOST = "127.0.0.1"


class Answer(NamedTuple):
    """What a server said; names of headers are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> object:
        return json.loads(self.body)


class Load(NamedTuple):
    """What came of a load: seconds that each answer took (N,), how many had which status, and answers a
    second."""

    latencies: np.ndarray
    statuses: dict[int, int]
    rate: float


def get(path: str) -> bytes:
    """A request's bytes."""
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


def post(path: str, body: object) -> bytes:
    """A request's bytes; a body that is not bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


class Client(asyncio.Protocol):
    """One connection, opened at the first request and again where the server has closed it.

    An answer that came before the connection broke counts: a server may refuse a body that is too large
    without reading it."""

    def __init__(self, port: int):
        self.port = port
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future | None = None
        self._said = bytearray()

    async def ask(self, request: bytes) -> Answer:
        """Raises ConnectionError where the server ends the connection without an answer."""
        await self.send(request)
        return await self._answer

    async def send(self, part: bytes) -> None:
        """Send what may be a part of a request; the rest of it is left to `ask`, or to nobody."""
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            await loop.create_connection(lambda: self, HOST, self.port)
        if self._answer is None or self._answer.done():
            self._answer = loop.create_future()
        self._transport.write(part)

    def leave(self) -> None:
        """Go without a word, whatever was asked."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport, self._said = transport, bytearray()

    def data_received(self, data: bytes) -> None:
        self._said += data
        end = self._said.find(b"\r\n\r\n")
        if end < 0:
            return
        first, *lines = self._said[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        whole = end + 4 + int(headers["content-length"])
        if len(self._said) < whole:
            return
        answer = Answer(int(first.split()[1]), headers, bytes(self._said[end + 4 : whole]))
        del self._said[:whole]
        if headers.get("connection", "").lower() == "close":
            self._transport.close()
        if not self._answer.done():
            self._answer.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the server closed the connection without an answer"))
            self._answer.exception()  # the one who asked may have gone


async def closed_loop(port: int, requests: Sequence[bytes], clients: int, seconds: float) -> Load:
    """So many clients, each of which asks for the next thing as soon as it has an answer."""
    began = time.perf_counter()
    latencies, statuses = [], []

    async def ask(first: int) -> None:
        client, at = Client(port), first
        while (sent := time.perf_counter()) < began + seconds:
            answer = await client.ask(requests[at % len(requests)])
            latencies.append(time.perf_counter() - sent)
            statuses.append(answer.status)
            at += clients
        client.leave()

    await asyncio.gather(*map(ask, range(clients)))
    return _load(latencies, statuses, time.perf_counter() - began)


async def open_loop(port: int, requests: Sequence[bytes], due: np.ndarray) -> Load:
    """Requests at the times that `due` (N,) says, in seconds from now, whether others are answered or not.

    A latency runs from the time at which a request was due, so that what the server delays is not hidden by
    asking it later (Tene, "How NOT to measure latency", 2013)."""
    began = time.perf_counter()
    idle: list[Client] = []
    latencies, statuses = [], []

    async def ask(request: bytes, at: float) -> None:
        client = idle.pop() if idle else Client(port)
        answer = await client.ask(request)
        latencies.append(time.perf_counter() - began - at)
        statuses.append(answer.status)
        idle.append(client)

    async with asyncio.TaskGroup() as asked:
        for number, at in enumerate(due.tolist()):
            if (wait := began + at - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            asked.create_task(ask(requests[number % len(requests)], at))
    for client in idle:
        client.leave()
    return _load(latencies, statuses, time.perf_counter() - began)


def _load(latencies: list[float], statuses: list[int], seconds: float) -> Load:
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    return Load(np.array(latencies), counts, len(latencies) / seconds)


def arrivals(rate: float, seconds: float, seed: int) -> np.ndarray:
    """Times (N,) within so many seconds at which independent clients come, `rate` of them a second: a Poisson
    process, whose number is Poisson and whose times, given the number, are uniform."""
    draw = np.random.default_rng(seed)
    return np.sort(draw.uniform(0, seconds, draw.poisson(rate * seconds)))


def quantiles(latencies: Iterable[float], shares: Sequence[float]) -> list[float]:
    """For each share the least value that so many of the values do not exceed: one that was seen."""
    return np.quantile(latencies, shares, method="inverted_cdf").tolist()
