"""Connections: what a client sends has limits and deadlines, and who keeps within them notices nothing."""

import asyncio
import json
from contextlib import asynccontextmanager
from functools import partial

import pytest
import uvicorn
from uvicorn.server import ServerState

from benchmarks.http_load import HOST
from multitask.serving.connections import Connection, Connections
from multitask.serving.limits import Limits

LIMITS = Limits(
    head_seconds=0.5,
    body_seconds=0.5,
    idle_seconds=1,
    send_seconds=0.5,
    connections=6,
    client_connections=4,
    url_bytes=500,
    header_bytes=600,
    headers=10,
    head_bytes=20_000,
    message_bytes=2_000_000,
)
GET = b"GET / HTTP/1.1\r\n\r\n"
LARGE = 30_000_000  # bytes of an answer, more than the system's buffers hold


async def echo(scope, receive, send):
    """/ answers with the body, /large with many bytes, /stream with no end, and /never not at all."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    if scope["path"] == "/never":
        await asyncio.Event().wait()
    content = b"x" * LARGE if scope["path"] == "/large" else body
    headers = [] if scope["path"] == "/stream" else [(b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["path"] == "/stream":
        await send({"type": "http.response.body", "body": b"event", "more_body": True})
        await asyncio.Event().wait()
    await send({"type": "http.response.body", "body": content})


@asynccontextmanager
async def serving(limits=LIMITS):
    """A server of `echo` → its port and its Connections."""
    config = uvicorn.Config(
        echo, lifespan="off", log_level="critical", timeout_keep_alive=limits.idle_seconds
    )
    connections, state = Connections(limits), ServerState()
    made = partial(Connection, connections, config=config, server_state=state, app_state={})
    server = await asyncio.get_running_loop().create_server(made, HOST, 0)
    watching = asyncio.create_task(connections.watch())
    try:
        async with asyncio.timeout(30):
            yield server.sockets[0].getsockname()[1], connections
    finally:
        watching.cancel()
        for task in list(state.tasks):
            task.cancel()
        server.close()


async def answers(port, *parts, pause=0.0) -> bytes:
    """Send parts → all that comes until the server closes the connection; b"" if it breaks."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


def status(answer: bytes) -> int | None:
    """The status of a refusal, which says why in a line of JSON; None for a connection that was closed."""
    if not answer:
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower() and json.loads(body)["detail"]
    return int(head.split()[1])


def call(main, limits=LIMITS):
    async def run():
        async with serving(limits) as (port, connections):
            return await main(port, connections)

    return asyncio.run(run())


async def ask(port, request=GET) -> bytes:
    """The answer to a request on a new connection."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()
    return head


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([b"GET /%s HTTP/1.1\r\n\r\n" % (b"x" * 600)], 414),
        ([b"GET / HTTP/1.1\r\nA: %s\r\n\r\n" % (b"x" * 700)], 431),
        ([b"GET / HTTP/1.1\r\n", b"A: x\r\n" * 11, b"\r\n"], 431),
        ([b"GET / HTTP/1.1\r\nA: ", *[b"x" * 5_000] * 9], 431),  # has no end
        ([b"GET /", *[b"x" * 5_000] * 9], 414),
        ([b"POST / HTTP/1.1\r\nContent-Length: 3000000\r\n\r\n", *[b"x" * 100_000] * 30], 413),
        ([b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 400_000], 413),
        ([b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: ", b"x" * 3_000_000], 413),
        ([b"no HTTP\r\n\r\n"], 400),
        ([b"GET / HTTP/1.1\r\nA: x"], 408),
        ([b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc"], 408),
    ],
)
def test_what_is_too_large_or_too_slow_is_refused_with_the_reason(parts, expected):
    async def main(port, connections):
        found = status(await answers(port, *parts))
        # the system may drop a refusal while the client still sends
        assert found == expected or (found is None and sum(map(len, parts)) > LIMITS.head_bytes)
        assert b"200 OK" in await ask(port)

    call(main)


def test_bytes_that_come_one_by_one_prolong_no_deadline():
    async def main(port, connections):
        head = status(
            await answers(port, *[bytes([byte]) for byte in b"GET / HTTP/1.1" + b"x" * 90], pause=0.05)
        )
        request = b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\n"
        body = status(await answers(port, request, *[b"x"] * 90, pause=0.05))
        assert {head, body} <= {408, None}

    call(main)


def test_an_idle_connection_is_closed_without_an_answer():
    async def main(port, connections):
        assert await answers(port) == b""
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.read() == b""
        writer.close()
        assert connections.all() == []

    call(main)


def test_requests_within_the_limits_are_answered_one_after_the_other():
    body = bytes(range(256)) * 4_000
    head = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(body[at : at + 999]), body[at : at + 999]) for at in range(0, len(body), 999)
    )
    chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"

    async def main(port, connections):
        reader, writer = await asyncio.open_connection(HOST, port)
        for request in (
            head + body,
            chunked,
            GET,
            head + body + chunked + GET,
        ):  # the last three are pipelined
            writer.write(request)
            for _ in range(request.count(b"HTTP/1.1")):
                answer = await reader.readuntil(b"\r\n\r\n")
                size = int(answer.lower().partition(b"content-length: ")[2].split()[0])
                assert await reader.readexactly(size) == (body if size else b"")
        writer.close()

    call(main)


def test_who_sends_many_requests_without_reading_is_disconnected():
    async def main(port, connections):
        found = await answers(port, b"GET /never HTTP/1.1\r\n\r\n" + GET * 1_000)
        assert found == b"" and connections.all() == []

    call(main)


def test_who_does_not_read_is_disconnected_and_who_reads_gets_all():
    async def main(port, connections):
        reader, writer = await asyncio.open_connection(HOST, port, limit=1)
        writer.write(b"GET /large HTTP/1.1\r\n\r\n")
        await asyncio.sleep(0.05)
        assert connections.all()
        while connections.all():
            await asyncio.sleep(0.05)
        writer.transport.abort()
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"GET /large HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        assert len(await reader.readexactly(LARGE)) == LARGE
        writer.close()

    call(main)


def test_unread_answers_are_limited_in_all():
    limits = Limits(unsent_bytes=LARGE * 3 // 2, send_seconds=20)

    async def main(port, connections):
        for count in (1, 1, 1):
            _, writer = await asyncio.open_connection(HOST, port, limit=1)
            writer.write(b"GET /large HTTP/1.1\r\n\r\n")
            await asyncio.sleep(0.6)
            assert len(connections.all()) == count
        writer.transport.abort()

    call(main, limits)


def test_the_connection_that_has_waited_longest_makes_room():
    async def main(port, connections):
        idle = [await asyncio.open_connection(HOST, port) for _ in range(4)]
        streams = [await asyncio.open_connection(HOST, port) for _ in range(2)]  # the fifth and the sixth
        for _, writer in streams:
            writer.write(b"GET /stream HTTP/1.1\r\n\r\n")
        for reader, _ in streams:
            await reader.readuntil(b"event")
        assert [await reader.read() for reader, _ in idle[:2]] == [b"", b""]
        assert len(connections.all()) == 4
        for _ in range(10):
            assert b"200 OK" in await ask(port)
        for _, writer in idle + streams:
            writer.transport.abort()

    call(main)


def test_a_connection_that_was_used_outlives_those_that_send_nothing():
    async def main(port, connections):
        reader, writer = await asyncio.open_connection(HOST, port)
        for count in (3, 6):
            writer.write(GET)
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            idle = [await asyncio.open_connection(HOST, port) for _ in range(count)]
        writer.write(GET)
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        for _, one in [*idle, (reader, writer)]:
            one.transport.abort()

    call(main)


def test_a_connection_that_is_being_answered_is_never_closed_for_another():
    async def main(port, connections):
        busy = [await asyncio.open_connection(HOST, port) for _ in range(4)]
        for _, writer in busy:
            writer.write(b"GET /never HTTP/1.1\r\n\r\n")
        await asyncio.sleep(0.1)
        assert status(await answers(port)) == 503
        assert len(connections.all()) == 4
        busy[0][1].transport.abort()
        await asyncio.sleep(0.1)
        assert b"200 OK" in await ask(port)
        for _, writer in busy:
            writer.transport.abort()

    call(main)
