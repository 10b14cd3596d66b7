"""How a server ends: accepted requests are answered, and no process is left."""

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
SECONDS = 5  # in which a server must end


async def accepted(port: int, texts: int) -> None:
    """Wait until the server has accepted so many texts; some must still be in the queue."""
    async with asyncio.timeout(60):
        while True:
            metrics = await measure(port)
            if metrics["multitask_queue_length"] + metrics["multitask_texts_total"] >= texts:
                break
    assert metrics["multitask_queue_length"]


async def hold(port: int, request: bytes) -> tuple:
    """Open a connection and send an incomplete request, or one for a stream, which has no end."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(request)
    if request.startswith(b"GET"):
        assert b"text/event-stream" in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def end(server, number: int) -> tuple[list[Answer], float]:
    """Send a signal while requests are computed and others are incomplete → the answers, and the seconds
    until the server ended."""
    body = post("/predict", {"texts": TEXTS})
    parts = (b"", body[:30], body[:-5], get("/gradio_api/heartbeat/apage"))
    held = [await hold(server.port, part) for part in parts]
    clients = [Client(server.port) for _ in range(CLIENTS)]
    requests = [asyncio.create_task(client.ask(body)) for client in clients]
    await accepted(server.port, CLIENTS * len(TEXTS))
    started = time.monotonic()
    server.process.send_signal(number)
    answers = await asyncio.gather(*requests)
    await asyncio.to_thread(server.process.wait, 60)  # the other connections stay open until then
    seconds = time.monotonic() - started
    for _, writer in held:
        writer.transport.abort()
    return answers, seconds


def all_ended(numbers: list[int], seconds: float = 10) -> bool:
    """Wait until these processes have ended → whether they did in time."""
    end = time.monotonic() + seconds
    while any(map(runs, numbers)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(runs, numbers))


def runs(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # a zombie has ended; its parent has not read its status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_accepted_requests_are_answered_before_the_server_ends(trained, tmp_path, number):
    with serving(tmp_path, str(trained)) as server:
        members = [process.number for process in family(server.process.pid)]
        assert len(members) > 1
        answers, seconds = asyncio.run(end(server, number))
        assert server.process.returncode == 0
        assert seconds < SECONDS
        assert [answer.status for answer in answers] == [200] * CLIENTS
        assert all(len(answer.json()["predictions"]) == len(TEXTS) for answer in answers)
        assert all_ended(members)
        assert server.messages.read_text() == ""


def test_a_killed_server_leaves_no_model_process(trained, tmp_path):
    with serving(tmp_path, str(trained)) as server:
        members = [process.number for process in family(server.process.pid)]
        server.stop(signal.SIGKILL)
        assert all_ended(members)
