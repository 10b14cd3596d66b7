"""Puts load on an HTTP server of this machine: many clients in one process, each with a lasting connection.

Clients of the usual libraries use more CPU time than the server. This one sends requests that were encoded
before, and parses no more of a response than its headers."""

import asyncio
import json
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

HOST = "127.0.0.1"


class Answer(NamedTuple):
    """A response; the names of its headers are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> object:
        return json.loads(self.body)


class Load(NamedTuple):
    """The result of a load."""

    latencies: np.ndarray  # (N,) seconds of each response
    statuses: dict[int, int]  # HTTP status → number of responses
    rate: float  # responses per second


def get(path: str) -> bytes:
    """The bytes of a GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


def post(path: str, body: object) -> bytes:
    """The bytes of a POST request; a body that is not bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


class Client(asyncio.Protocol):
    """One connection. It is opened at the first request, and again after the server has closed it.

    A response that came before the connection broke counts: a server may refuse a body that is too large
    without reading it."""

    def __init__(self, port: int):
        self.port = port
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future | None = None
        self._received = bytearray()

    async def ask(self, request: bytes) -> Answer:
        """Send a request → the response. Raises ConnectionError if the connection ends without one."""
        await self.send(request)
        return await self._answer

    async def send(self, part: bytes) -> None:
        """Send a request or the beginning of one; `ask` may send the rest."""
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            await loop.create_connection(lambda: self, HOST, self.port)
        if self._answer is None or self._answer.done():
            self._answer = loop.create_future()
        self._transport.write(part)

    def leave(self) -> None:
        """Abort the connection, even during a request."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport, self._received = transport, bytearray()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        first, *lines = self._received[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        whole = end + 4 + int(headers["content-length"])
        if len(self._received) < whole:
            return
        answer = Answer(int(first.split()[1]), headers, bytes(self._received[end + 4 : whole]))
        del self._received[:whole]
        if headers.get("connection", "").lower() == "close":
            self._transport.close()
        if not self._answer.done():
            self._answer.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the server closed the connection without an answer"))
            self._answer.exception()  # marks it as retrieved: the caller may have been cancelled


async def closed_loop(port: int, requests: Sequence[bytes], clients: int, seconds: float) -> Load:
    """A number of clients, each of which sends its next request as soon as it has a response."""
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
    """Send requests at the times `due` (N,), in seconds from now, without waiting for earlier responses.

    Latency is measured from the time at which a request was due: otherwise a delay of the server would hide
    itself by delaying requests (Tene, "How NOT to measure latency", 2013)."""
    began = time.perf_counter()
    idle: list[Client] = []
    latencies, statuses = [], []

    async def ask(request: bytes, at: float) -> None:
        client = idle.pop() if idle else Client(port)
        answer = await client.ask(request)
        latencies.append(time.perf_counter() - began - at)
        statuses.append(answer.status)
        idle.append(client)

    async with asyncio.TaskGroup() as tasks:
        for number, at in enumerate(due.tolist()):
            if (wait := began + at - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            tasks.create_task(ask(requests[number % len(requests)], at))
    for client in idle:
        client.leave()
    return _load(latencies, statuses, time.perf_counter() - began)


def _load(latencies: list[float], statuses: list[int], seconds: float) -> Load:
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    return Load(np.array(latencies), counts, len(latencies) / seconds)


def arrivals(rate: float, seconds: float, seed: int) -> np.ndarray:
    """Random arrival times (N,) of independent clients, `rate` per second: a Poisson process. Its number of
    arrivals has a Poisson distribution, and given the number, the times are uniform."""
    draw = np.random.default_rng(seed)
    return np.sort(draw.uniform(0, seconds, draw.poisson(rate * seconds)))


def quantiles(latencies: Iterable[float], shares: Sequence[float]) -> list[float]:
    """For each share the smallest observed value that this share of the values does not exceed."""
    return np.quantile(latencies, shares, method="inverted_cdf").tolist()
