"""A whole server: uploads, bad events of the page, attacks, and that nothing is left of it."""

import asyncio
import json
import os
import signal
import time
from functools import partial
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from benchmarks.attack import from_outside, predict, watched
from benchmarks.attacks import ATTACKS
from benchmarks.http_load import HOST, Client, post
from benchmarks.odd_requests import upload
from benchmarks.processes import family
from benchmarks.server import serving

ROWS = b"anna won in paris\nthe vote\n"
REFUSALS = {"400", "403", "413", "414", "415", "422", "431", "503", "closed"}
QUICK = [name for name in ATTACKS if not name.startswith(("idle", "slow"))]
JOIN = "/gradio_api/queue/join"


def post_to(port: int, path: str, body: bytes, **headers: str) -> object:
    with urlopen(Request(f"http://{HOST}:{port}{path}", body, headers)) as answer:
        return json.load(answer)


def send_file(port: int, content: bytes = ROWS, name: str = "rows.txt") -> str:
    """Upload a file as the page does → its path."""
    head, _, body = upload(content, name).partition(b"\r\n\r\n")
    kind = head.decode().partition("Content-Type: ")[2].splitlines()[0]
    (path,) = post_to(port, "/gradio_api/upload", body, **{"Content-Type": kind})
    return path


def read_file(port: int, path: str, session: str) -> str:
    """Send the page's event for an uploaded file → the HTML of its result."""
    with urlopen(f"http://{HOST}:{port}/config") as config:
        events = json.load(config)["dependencies"]
    number = next(event["id"] for event in events if event["targets"][0][1] == "upload")
    file = {"path": path, "orig_name": "rows.txt", "meta": {"_type": "gradio.FileData"}}
    event = {"data": [file, "", 0], "fn_index": number, "session_hash": session}
    post_to(port, JOIN, json.dumps(event).encode(), **{"Content-Type": "application/json"})
    with urlopen(f"http://{HOST}:{port}/gradio_api/queue/data?session_hash={session}") as stream:
        for line in stream:
            message = json.loads(line.removeprefix(b"data: ") if line.strip() else b"{}")
            if message.get("msg") == "process_completed":
                return json.dumps(message["output"])
    raise AssertionError("the stream ended")


def gone(path: str, seconds: float = 30) -> bool:
    """Wait until there is no such path → whether that came true."""
    end = time.monotonic() + seconds
    while os.path.exists(path) and time.monotonic() < end:
        time.sleep(0.05)
    return not os.path.exists(path)


@pytest.fixture(scope="module")
def server(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    with serving(folder, str(trained), environment={"GRADIO_TEMP_DIR": str(folder)}) as server:
        yield server


def test_two_people_with_the_same_file_both_get_their_answers(server):
    paths = [send_file(server.port), send_file(server.port)]
    assert paths[0] != paths[1]
    found = [read_file(server.port, path, f"session{number}") for number, path in enumerate(paths)]
    for one, path in zip(found, paths):
        assert "2 rows in" in one and "rows.txt" in one
        assert not os.path.exists(path)
    with pytest.raises(HTTPError, match="403"):
        read_file(server.port, paths[0] + "x", "another")


def test_a_bad_event_writes_one_line_of_log(server):
    lines = len(server.messages.read_text().splitlines())
    for event in (
        {"data": [], "fn_index": 0, "session_hash": "a"},  # too few values
        {"data": [7, [], "x"], "fn_index": 0, "session_hash": "a"},  # of other types
        {"data": ["anna", "another model", 0], "fn_index": 0, "session_hash": "a"},
        {"data": ["anna", "", 0], "fn_index": 99, "session_hash": "a"},
        {"data": {}, "fn_index": 0},
        b"no JSON",
    ):
        status = asyncio.run(Client(server.port).ask(post(JOIN, event))).status
        assert status in (200, 403)  # 200 of an event that is computed later
        end = time.monotonic() + 20
        while len(server.messages.read_text().splitlines()) == lines and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.1)
        found = server.messages.read_text().splitlines()[lines:]
        assert len(found) == 1, (event, found)
        lines += 1


@pytest.mark.parametrize("name", QUICK)
def test_after_an_attack_every_text_gets_its_answer(server, name):
    async def main():
        client = Client(server.port)
        before = await client.ask(post("/predict", {"texts": ["anna won", "in paris"]}))
        outcomes = await ATTACKS[name](server.port)
        async with asyncio.timeout(60):
            while True:
                after = await Client(server.port).ask(post("/predict", {"texts": ["anna won", "in paris"]}))
                if after.status != 503:
                    return before, outcomes, after
                await asyncio.sleep(0.1)

    before, outcomes, after = asyncio.run(main())
    assert before.status == after.status == 200 and before.body == after.body
    assert outcomes and outcomes.keys() <= REFUSALS | {"200"}


@pytest.mark.exhaustive  # needs a quiet machine, as benchmarks/attack.py does
@pytest.mark.parametrize("name", ATTACKS)
def test_health_answers_in_time_under_attack(server, name):
    known = {text: predict(server.port, text)[1] for text in ("anna won", "in paris")}
    result = watched(server.port, known, partial(from_outside, name, server.port, 5.0))
    assert result["health"]["p99"] <= 100, result
    assert "wrong" not in result["predictions"] and result["predictions"]["right"]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_nothing_is_left_of_uploads_when_the_server_has_ended(trained, tmp_path, number):
    with serving(tmp_path, str(trained), environment={"GRADIO_TEMP_DIR": str(tmp_path)}) as server:
        path = send_file(server.port)
        assert os.path.exists(path) and path.startswith(str(tmp_path))
        assert os.stat(os.path.dirname(os.path.dirname(path))).st_mode & 0o777 == 0o700
        members = [process.number for process in family(server.process.pid)]
        status = server.stop(number)
        assert status == (0 if number != signal.SIGKILL else -number)
        assert gone(os.path.dirname(os.path.dirname(path)))
        assert sorted(os.listdir(tmp_path)) == ["messages"] and len(members) > 1
