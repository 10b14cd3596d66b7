"""How a server ends: what it accepted is answered, and nothing of it stays behind."""

import asyncio
import signal
import time
from pathlib import Path

import pytest
from traffic import measure

from benchmarks.http_load import HOST, Answer, Client, get, post
from benchmarks.processes import family
from benchmarks.server import serving

pytestmark = pytest.mark.load
TEXTS = ["anna won the match in paris"] * 100
CLIENTS = 12
SECONDS = 5  # within which a server is promised to end


async def accepted(port: int, texts: int) -> None:
    """Until so many texts are accepted, of which some still wait."""
    async with asyncio.timeout(60):
        while True:
            found = await measure(port)
            if found["multitask_queue_length"] + found["multitask_texts_total"] >= texts:
                break
    assert found["multitask_queue_length"]


async def hold(port: int, request: bytes) -> tuple:
    """A connection with something on it that does not end; asked for a page's stream, it has begun."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(request)
    if request.startswith(b"GET"):
        assert b"text/event-stream" in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def end(server, number: int) -> tuple[list[Answer], float]:
    """Send a signal while requests are read and others are not all there → the answers, and the seconds that
    the server still lived."""
    body = post("/predict", {"texts": TEXTS})
    parts = (b"", body[:30], body[:-5], get("/gradio_api/heartbeat/apage"))
    held = [await hold(server.port, part) for part in parts]
    clients = [Client(server.port) for _ in range(CLIENTS)]
    asked = [asyncio.create_task(client.ask(body)) for client in clients]
    await accepted(server.port, CLIENTS * len(TEXTS))
    began = time.monotonic()
    server.process.send_signal(number)
    answers = await asyncio.gather(*asked)
    await asyncio.to_thread(server.process.wait, 60)  # the others are held until then
    ended = time.monotonic() - began
    for _, writer in held:
        writer.transport.abort()
    return answers, ended


def gone(numbers: list[int], seconds: float = 10) -> bool:
    """Whether these processes have ended, or do so soon: what keeps account of them ends last."""
    end = time.monotonic() + seconds
    while any(map(runs, numbers)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(runs, numbers))


def runs(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # ended, and nobody has asked how


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_accepted_is_answered_before_the_server_ends(trained, tmp_path, number):
    with serving(tmp_path, str(trained)) as server:
        members = [process.number for process in family(server.process.pid)]
        assert len(members) > 1
        answers, seconds = asyncio.run(end(server, number))
        assert server.process.returncode == 0
        assert seconds < SECONDS
        assert [answer.status for answer in answers] == [200] * CLIENTS
        assert all(len(answer.json()["predictions"]) == len(TEXTS) for answer in answers)
        assert gone(members)
        assert server.messages.read_text() == ""


def test_a_server_that_is_killed_leaves_no_model_behind(trained, tmp_path):
    with serving(tmp_path, str(trained)) as server:
        members = [process.number for process in family(server.process.pid)]
        server.stop(signal.SIGKILL)
        assert gone(members)
