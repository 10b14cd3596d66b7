"""task_6.py under load: right answers, bounded memory, an API as described, no other hosts."""

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


# runs in every Python process of the server, and logs each use of the network before it happens
WATCH = """
import os, sys
import uvloop

log = open(os.environ["NETWORK_LOG"], "a", buffering=1)

def note(event, where):
    log.write(f"{os.getpid()} {event} {where}\\n")

def audit(event, details):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind"):
        note(event, [details[1]] if isinstance(details[1], (str, bytes)) else details[1][0])
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        note(event, details[0])

def logged(name):
    real = getattr(uvloop.Loop, name)
    def call(loop, *where, **how):
        note(name, how.get("host") or (where or [None])[-2 if name == "create_connection" else 0])
        return real(loop, *where, **how)
    return call

# written in C: the audit hook does not see these
for name in ("getaddrinfo", "create_connection", "create_datagram_endpoint"):
    setattr(uvloop.Loop, name, logged(name))
sys.addaudithook(audit)
note("started", "python")
"""
UNSET = ("HF_HUB_OFFLINE", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY")


@pytest.fixture(scope="module")
def network_log(tmp_path_factory):
    """The file in which the server's processes log each use of the network."""
    folder = tmp_path_factory.mktemp("watch")
    (folder / "sitecustomize.py").write_text(WATCH)
    return folder / "log"


@pytest.fixture(scope="module")
def server(trained, network_log, tmp_path_factory):
    environment = {**dict.fromkeys(UNSET), "PYTHONPATH": str(network_log.parent)}
    environment["NETWORK_LOG"] = str(network_log)
    with serving(tmp_path_factory.mktemp("served"), str(trained), environment=environment) as server:
        yield server


def megabytes(server) -> float:
    return sum(process.memory for process in family(server.process.pid))


async def check_all(server, kinds, clients, seconds):
    """Send requests from many clients, and wait until the server is idle: it must have logged no error."""
    counts = await visit(server.port, kinds, clients, seconds)
    await idle(server.port)
    assert server.messages.read_text() == ""
    return counts


def test_every_kind_of_request_gets_the_expected_answer(server, kinds):
    async def each_once():
        client = Client(server.port)
        for same_kind in kinds.values():
            for case in same_kind:
                case.check(await client.ask(case.request))

    asyncio.run(each_once())


def test_many_clients_get_their_own_answers(server, kinds):
    counts = asyncio.run(check_all(server, kinds, clients=20, seconds=2))
    assert counts["one text", 200] and sum(count for (_, status), count in counts.items() if status == GONE)


def test_half_a_minute_of_fifty_clients_leaks_no_memory(server, kinds):
    asyncio.run(check_all(server, kinds, clients=50, seconds=15))
    before = megabytes(server)
    counts = asyncio.run(check_all(server, kinds, clients=50, seconds=15))
    assert megabytes(server) - before < 30
    assert {name for name, _ in counts} == set(kinds)
    print(counts)


def test_the_api_conforms_to_its_description(server, tmp_path):
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"http://{HOST}:{server.port}/openapi.json"]
    command += ["--checks=all", "--mode=all", "--phases=examples,coverage,fuzzing", "--seed=1"]
    command += ["--max-examples=15", "--warnings=off", "--no-color"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout
    assert "Selected: 4/4" in ended.stdout


def test_the_command_in_the_description_works(server):
    with urllib.request.urlopen(f"http://{HOST}:{server.port}/openapi.json") as answer:
        about = json.load(answer)["info"]["description"]
    ended = subprocess.run(["sh", "-c", about.partition("\n\n")[2]], capture_output=True, text=True)
    assert [row["text"] for row in json.loads(ended.stdout)["predictions"]] == ["Marit Solheim won in Oslo."]


def test_the_server_contacts_no_other_host(server, network_log):
    for path in ("/", "/docs", "/openapi.json", "/metrics", "/config"):
        with urllib.request.urlopen(f"http://{HOST}:{server.port}{path}") as answer:
            assert answer.status == 200
    events = [line.split(" ", 2) for line in network_log.read_text().splitlines()]
    processes = {number for number, event, _ in events if event == "started"}
    assert {str(member.number) for member in family(server.process.pid)} <= processes
    assert {(event, where) for _, event, where in events} <= {
        ("started", "python"),
        ("socket.bind", HOST),
        ("socket.getaddrinfo", HOST),
    }
