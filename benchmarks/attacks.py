"""What hostile or broken clients send to a server: each attack in a function that counts how it was answered.

An outcome is the HTTP status, or "closed" where the server closed the connection without an answer."""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress

from benchmarks.http_load import HOST, get, post
from benchmarks.odd_requests import MEGABYTE, other_json, upload

CLOSED = "closed"

Outcomes = Counter[str]


async def send(port: int, parts: Iterable[bytes] | AsyncIterator[bytes], seconds: float = 60) -> str:
    """Send the parts of a request on a connection of its own → the outcome."""
    reader, writer = await asyncio.open_connection(HOST, port, limit=4 * MEGABYTE)
    try:
        async with asyncio.timeout(seconds):
            writing = asyncio.create_task(_write(writer, parts))
            line = await reader.readline()
            writing.cancel()
    except TimeoutError:
        return "no answer"
    except OSError:
        return CLOSED
    finally:
        writer.transport.abort()
    return line.split()[1].decode() if line else CLOSED


async def _write(writer: asyncio.StreamWriter, parts: Iterable[bytes] | AsyncIterator[bytes]) -> None:
    with suppress(OSError):  # the answer counts
        if isinstance(parts, AsyncIterator):
            async for part in parts:
                writer.write(part)
                await writer.drain()
        else:
            for part in parts:
                writer.write(part)
                await writer.drain()


async def together(port: int, requests: Iterable[Iterable[bytes] | AsyncIterator[bytes]]) -> Outcomes:
    """Send requests at once, each on its own connection → their outcomes."""
    return Counter(await asyncio.gather(*(send(port, parts) for parts in requests)))


async def idle_sockets(port: int, count: int = 500, seconds: float = 12) -> Outcomes:
    """Connections on which nothing, or half a request line, is sent."""
    outcomes: Outcomes = Counter()

    async def wait(number: int) -> None:
        try:
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(b"GET /hea" * (number % 2))
            async with asyncio.timeout(seconds):
                line = await reader.readline()
            outcomes[line.split()[1].decode() if line else CLOSED] += 1
        except TimeoutError:
            outcomes["still open"] += 1
        except OSError:
            outcomes[CLOSED] += 1

    await asyncio.gather(*map(wait, range(count)))
    return outcomes


async def slow_heads(port: int) -> Outcomes:
    """200 clients send a byte of a header ten times a second."""

    async def drip() -> AsyncIterator[bytes]:
        yield b"GET /health HTTP/1.1\r\nA: "
        while True:
            await asyncio.sleep(0.1)
            yield b"x"

    return await together(port, [drip() for _ in range(200)])


async def slow_bodies(port: int) -> Outcomes:
    """100 clients send a byte of a body ten times a second."""

    async def drip() -> AsyncIterator[bytes]:
        request = post("/predict", {"texts": ["x" * 900]})
        yield request[:-800]
        for byte in request[-800:]:
            await asyncio.sleep(0.1)
            yield bytes([byte])

    return await together(port, [drip() for _ in range(100)])


async def large_header(port: int) -> Outcomes:
    """Four headers of 60 MB."""
    return await together(port, [_head(b"A: ", [b"x" * MEGABYTE] * 60) for _ in range(4)])


async def many_headers(port: int) -> Outcomes:
    """Four requests with a million headers."""
    return await together(port, [_head(b"", [b"A: x\r\n" * 10_000] * 100) for _ in range(4)])


async def long_url(port: int) -> Outcomes:
    """Four URLs of 10 MB."""
    return await together(port, [[b"GET /", *[b"x" * MEGABYTE] * 10, b" HTTP/1.1\r\n\r\n"] for _ in range(4)])


def _head(first: bytes, parts: list[bytes]) -> list[bytes]:
    return [b"GET /health HTTP/1.1\r\n" + first, *parts, b"\r\n\r\n"]


async def many_keys(port: int) -> Outcomes:
    """30 objects with 130,000 keys, of a megabyte."""
    keys = b"{%s}" % b",".join(b'"%x":8' % number for number in range(100_000))
    keys = keys[:-1] + b',"y":8' * 30_000
    body = keys[: MEGABYTE - 8].rpartition(b",")[0] + b"}"
    return await together(port, [[post("/predict", body)]] * 30)


async def other_bodies(port: int) -> Outcomes:
    """Three of each body that is JSON, or nearly, and not what is wanted."""
    requests = [post(path, body) for body in other_json().values() for path in ("/predict", "/embed")]
    return await together(port, [[request] for request in requests * 3])


async def tiny_chunks(port: int) -> Outcomes:
    """4 bodies of a megabyte in chunks of one byte."""
    head = f"POST /predict HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
    body = [b"1\r\nx\r\n" * 10_000] * 105
    return await together(port, [[head.encode() + b"Transfer-Encoding: chunked\r\n\r\n", *body]] * 4)


async def pipelined(port: int) -> Outcomes:
    """20 clients send 20,000 requests each without waiting."""
    return await together(port, [[get("/health") * 1_000] * 20] * 20)


async def slow_readers(port: int) -> Outcomes:
    """8 clients ask for a thousand embeddings, of 8 MB, and do not read them."""

    async def ask() -> str:
        reader, writer = await asyncio.open_connection(HOST, port, limit=1)
        writer.transport.pause_reading()
        writer.write(post("/embed", {"texts": ["a"] * 1_000}))
        await asyncio.sleep(40)
        writer.transport.resume_reading()
        try:
            async with asyncio.timeout(20):
                return CLOSED if len(await reader.read()) < 5 * MEGABYTE else "200"
        except (OSError, TimeoutError):
            return CLOSED
        finally:
            writer.transport.abort()

    return Counter(await asyncio.gather(*(ask() for _ in range(8))))


async def uploads(port: int) -> Outcomes:
    """60 files of a megabyte, three times."""
    content = (b"anna won in paris\n" * 60_000)[: MEGABYTE - 100]
    outcomes: Outcomes = Counter()
    for _ in range(3):
        outcomes += await together(port, [[upload(content)] for _ in range(60)])
    return outcomes


async def other_uploads(port: int) -> Outcomes:
    """Files of kinds that are not read, and of other sites; bodies that are no files."""
    foreign = "Origin: http://example.org\r\nSec-Fetch-Site: cross-site\r\n"
    requests = [upload(b"x" * 1000, name) for name in ("a.exe", "a.parquet", "a", "../../a.html")]
    requests += [upload(b"x" * 1000, headers=foreign), upload(b"x" * (MEGABYTE + 2000))]
    requests += [upload(b"", kind="nothing"), upload(b"").replace(b'"files"', b'"other"')]
    return await together(port, [[request] for request in requests * 10])


async def bad_events(port: int) -> Outcomes:
    """Events that are not the page's."""
    path, file = "/gradio_api/queue/join", {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    events = [
        {"data": data, "fn_index": fn, "session_hash": "a"}
        for data in ([], [file], [[[7]]])
        for fn in (0, 99)
    ]
    requests = [post(path, event) for event in events]
    requests += [post(path, body) for body in (b"", b"no JSON", b"[1]", *other_json().values())]
    return await together(port, [[request] for request in requests])


ATTACKS: dict[str, Callable[[int], Awaitable[Outcomes]]] = {
    one.__name__: one
    for one in (
        idle_sockets,
        slow_heads,
        slow_bodies,
        large_header,
        many_headers,
        long_url,
        many_keys,
        other_bodies,
        tiny_chunks,
        pipelined,
        slow_readers,
        uploads,
        other_uploads,
        bad_events,
    )
}


def run(name: str, port: int, seconds: float) -> dict:
    """Attack, and attack again until the seconds have passed → how long it took, and the outcomes."""
    began, outcomes, took = time.perf_counter(), Counter(), 0.0
    while not outcomes or took < seconds:
        outcomes += asyncio.run(ATTACKS[name](port))
        took = time.perf_counter() - began
    return {"seconds": round(took, 1), "outcomes": dict(sorted(outcomes.items()))}


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
