"""task_6.py as many clients meet it: right answers, bounded queues and memory, an end that loses nothing."""

import asyncio
import json
import subprocess
import sys
import urllib.request

import pytest
from traffic import GONE, by_name, cases, idle, visit

from benchmarks.http_load import HOST, Client
from benchmarks.processes import family
from benchmarks.server import serving
from multitask.inference.predictor import Predictor


@pytest.fixture(scope="module")
def kinds(trained):
    return by_name(cases(Predictor.from_pretrained(trained, "cpu")))


# goes into every Python process of the server: what it wants of the network, written down before it is done
WATCH = """
import os, sys
import uvloop

seen = open(os.environ["SEEN"], "a", buffering=1)

def note(event, where):
    seen.write(f"{os.getpid()} {event} {where}\\n")

def audit(event, details):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind"):
        note(event, [details[1]] if isinstance(details[1], (str, bytes)) else details[1][0])
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        note(event, details[0])

def noted(name):
    real = getattr(uvloop.Loop, name)
    def call(loop, *where, **how):
        note(name, how.get("host") or (where or [None])[-2 if name == "create_connection" else 0])
        return real(loop, *where, **how)
    return call

# in C, of which the audit hook learns nothing
for name in ("getaddrinfo", "create_connection", "create_datagram_endpoint"):
    setattr(uvloop.Loop, name, noted(name))
sys.addaudithook(audit)
note("started", "python")
"""
UNSET = ("HF_HUB_OFFLINE", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY")


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """The file of what the server's processes want of the network."""
    folder = tmp_path_factory.mktemp("watch")
    (folder / "sitecustomize.py").write_text(WATCH)
    return folder / "seen"


@pytest.fixture(scope="module")
def server(trained, seen, tmp_path_factory):
    environment = {**dict.fromkeys(UNSET), "PYTHONPATH": str(seen.parent), "SEEN": str(seen)}
    with serving(tmp_path_factory.mktemp("served"), str(trained), environment=environment) as server:
        yield server


def megabytes(server) -> float:
    return sum(process.memory for process in family(server.process.pid))


async def check_all(server, kinds, clients, seconds):
    """After the clients have gone, nothing of theirs is left; every kind was met, and nothing went wrong."""
    seen = await visit(server.port, kinds, clients, seconds)
    await idle(server.port)
    assert server.messages.read_text() == ""
    return seen


def test_every_answer_is_what_the_predictor_says_or_why_there_is_none(server, kinds):
    async def each_once():
        client = Client(server.port)
        for found in kinds.values():
            for case in found:
                case.check(await client.ask(case.request))

    asyncio.run(each_once())


def test_many_clients_get_their_own_answers(server, kinds):
    seen = asyncio.run(check_all(server, kinds, clients=20, seconds=2))
    assert seen["one text", 200] and sum(count for (_, how), count in seen.items() if how == GONE)


@pytest.mark.load
def test_half_a_minute_of_fifty_clients_leaves_nothing_behind(server, kinds):
    asyncio.run(check_all(server, kinds, clients=50, seconds=15))
    before = megabytes(server)
    seen = asyncio.run(check_all(server, kinds, clients=50, seconds=15))
    assert megabytes(server) - before < 30
    assert {name for name, _ in seen} == set(kinds)
    print(seen)


def test_the_api_does_what_its_description_says(server, tmp_path):
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"http://{HOST}:{server.port}/openapi.json"]
    command += ["--checks=all", "--mode=all", "--phases=examples,coverage,fuzzing", "--seed=1"]
    command += ["--max-examples=15", "--warnings=off", "--no-color"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout
    assert "Selected: 4/4" in ended.stdout


def test_the_command_in_the_description_asks_this_server(server):
    with urllib.request.urlopen(f"http://{HOST}:{server.port}/openapi.json") as answer:
        about = json.load(answer)["info"]["description"]
    ended = subprocess.run(["sh", "-c", about.partition("\n\n")[2]], capture_output=True, text=True)
    assert [row["text"] for row in json.loads(ended.stdout)["predictions"]] == ["Marit Solheim won in Oslo."]


def test_the_server_asks_no_other_host(server, seen):
    for path in ("/", "/docs", "/openapi.json", "/metrics", "/config"):
        with urllib.request.urlopen(f"http://{HOST}:{server.port}{path}") as answer:
            assert answer.status == 200
    events = [line.split(" ", 2) for line in seen.read_text().splitlines()]
    processes = {number for number, event, _ in events if event == "started"}
    assert {str(member.number) for member in family(server.process.pid)} <= processes
    assert {(event, where) for _, event, where in events} <= {
        ("started", "python"),
        ("socket.bind", HOST),
        ("socket.getaddrinfo", HOST),
    }
