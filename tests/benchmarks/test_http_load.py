"""The HTTP client of the load tests and benchmarks measures correctly."""

import asyncio
import contextlib
import time

import numpy as np
import pytest

from benchmarks.http_load import HOST, Client, arrivals, closed_loop, get, open_loop, post, quantiles


@contextlib.asynccontextmanager
async def answering(answer):
    """Start a server that calls `answer` for each request, in order for each connection → its port."""

    async def serve(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = int(head.partition("Content-Length: ")[2].partition("\r\n")[0] or 0)
                await answer(head.split()[1], await reader.readexactly(length), writer)
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


def reply(body: bytes, status: int = 200, headers: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


async def echo(path, body, writer):
    """Respond with path and body, in pieces, as a network may deliver them."""
    whole = reply(path.encode() + body)
    for part in (whole[:20], whole[20:-1], whole[-1:]):
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0)


def test_a_client_gets_the_responses_to_its_requests():
    async def main():
        async with answering(echo) as port:
            client = Client(port)
            bodies = [(await client.ask(post("/a", body))).body for body in (b"1", b"22", b"x" * 100_000)]
            assert bodies == [b"/a1", b"/a22", b"/a" + b"x" * 100_000]
            assert (await client.ask(post("/b", {"é": 1}))).body == b'/b{"\\u00e9": 1}'
            assert (await client.ask(get("/c"))).body == b"/c"
            client.leave()

    asyncio.run(main())


def test_a_response_before_the_connection_ends_counts_and_none_is_an_error():
    async def refuse(path, body, writer):
        writer.write(
            reply(b"no", 413, "Connection: close\r\n") if path == "/large" else b"HTTP/1.1 200 X\r\n"
        )
        writer.close()

    async def main():
        async with answering(refuse) as port:
            client = Client(port)
            for _ in range(2):  # each time on a new connection
                assert (await client.ask(get("/large"))).status == 413
            with pytest.raises(ConnectionError):
                await client.ask(get("/"))

    asyncio.run(main())


def test_a_closed_loop_sends_the_next_request_after_a_response():
    paths = []

    async def count(path, body, writer):
        paths.append(path)
        writer.write(reply(b"", 200 if len(paths) % 4 else 503))

    async def main():
        async with answering(count) as port:
            return await closed_loop(port, [get(f"/{n}") for n in range(6)], clients=3, seconds=0.2)

    load = asyncio.run(main())
    assert len(load.latencies) == sum(load.statuses.values()) == len(paths)
    assert load.statuses[503] == len(paths) // 4
    assert set(paths) == {f"/{n}" for n in range(6)}
    assert 0 < load.rate <= len(paths) / 0.2


def test_an_open_loop_measures_latency_from_the_time_a_request_was_due():
    """The server is blocked until all requests are due: each of them waits from its due time."""
    due = np.linspace(0, 0.2, 20)
    stuck = asyncio.Event()

    async def answer(path, body, writer):
        await stuck.wait()
        writer.write(reply(b""))

    async def main():
        async with answering(answer) as port:
            began = time.perf_counter()
            load = asyncio.create_task(open_loop(port, [get("/")], due))
            await asyncio.sleep(0.05)
            time.sleep(0.15)  # the client itself is blocked, too
            await asyncio.sleep(0.1)
            freed = time.perf_counter() - began
            stuck.set()
            return freed, await load

    freed, load = asyncio.run(main())
    assert load.statuses == {200: 20}
    assert (np.sort(load.latencies)[::-1] >= freed - due - 0.05).all()


def test_arrivals_are_a_poisson_process():
    times = arrivals(rate=200, seconds=100, seed=3)
    assert (np.diff(times) >= 0).all() and times[0] >= 0 and times[-1] < 100
    assert len(times) == pytest.approx(20_000, rel=0.03)
    gaps = np.diff(times) * 200  # exponential, of mean 1: its deciles
    deciles = -np.log(1 - np.arange(1, 10) / 10)
    assert np.quantile(gaps, np.arange(1, 10) / 10) == pytest.approx(deciles, rel=0.06)
    counts = np.histogram(times, bins=1000, range=(0, 100))[0]
    assert counts.var() == pytest.approx(counts.mean(), rel=0.15)
    numbers = [len(arrivals(rate=50, seconds=2, seed=seed)) for seed in range(400)]
    assert (np.mean(numbers), np.var(numbers)) == pytest.approx((100, 100), rel=0.25)


def test_quantiles_are_observed_values():
    values = np.random.default_rng(0).exponential(size=98)
    for share, quantile in zip((0.5, 0.95, 0.99), quantiles(values, (0.5, 0.95, 0.99))):
        assert quantile == min(value for value in values if (values <= value).mean() >= share)
