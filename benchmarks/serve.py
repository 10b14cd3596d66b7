"""Requests that task_6.py answers in a second, how long each waits, and what batches gain.

    python benchmarks/serve.py [--model DIR] [--data FILE] [--clients N] [--seconds S] [--rounds N]
        [--starts N] [--output FILE.json]

The server runs on this machine in processes of its own, the clients in this one: they share the cores.
Closed loop: --clients clients send one sentence each to /predict, again and again; round by round to a server
that joins requests into batches, and to one that gives its model one sentence at a time. Open loop: requests
come at random times (Poisson), half as many a second as the closed loop had answered, and wait for no earlier
one; latencies run from the time at which a request was due. Start: from the command to the first
answer of /predict, and of the page. The last line is JSON."""

import argparse
import asyncio
import http.client
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.http_load import HOST, Load, arrivals, closed_loop, open_loop, post, quantiles
from benchmarks.processes import busy_seconds, family
from benchmarks.provenance import finish, parse, provenance
from benchmarks.server import TASK_6, Server, serving
from benchmarks.tables import markdown
from multitask.common.errors import InputError
from multitask.common.shell import run_script
from multitask.data.texts import read_rows
from multitask.inference.predictor import LATEST_MODEL

logger = logging.getLogger("multitask.benchmarks")

WAYS = {"batches": TASK_6, "one by one": (str(ROOT / "benchmarks" / "one_by_one.py"),)}
SHARES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
PACKAGES = ("torch", "fastapi", "uvicorn", "uvloop", "httptools", "gradio")
_QUIET, _PATIENCE = 0.15, 120.0  # of a core; seconds


def main() -> None:
    arguments = options()
    texts = [row.text for row in read_rows(arguments.data)]
    requests = [post("/predict", {"texts": [text]}) for text in texts]
    record = {
        **provenance(range(arguments.rounds), os.cpu_count(), PACKAGES),
        "sentences": len(texts),
        "clients": arguments.clients,
        "seconds": arguments.seconds,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record["start_seconds"] = starts(arguments, folder)
        with ExitStack() as stack:
            servers = {}
            for way, words in WAYS.items():
                (folder / way).mkdir()
                servers[way] = stack.enter_context(serving(folder / way, arguments.model, words))
            for server in servers.values():
                settle(server)
            first = servers["batches"]
            before = memory(first)
            closed = by_turns(servers, requests, arguments)
            peak, single = (statistics.median(closed[way]["rate"]) for way in WAYS)
            record |= {"closed_loop": closed, "ratio": round(peak / single, 2)}
            record["open_loop"] = at_half(first, requests, peak / 2, arguments)
            record["megabytes"] = {"before": before, "after": memory(first)}
    print(report(record))
    finish(record, arguments.output)


def options() -> argparse.Namespace:
    parser = model_and_data("Load on task_6.py.")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--starts", type=int, default=3, help="that are timed")
    return parse(parser)


def model_and_data(description: str) -> argparse.ArgumentParser:
    """A command line that names a model, and sentences for it."""
    parser = argparse.ArgumentParser(description=description)
    sentences = str(ROOT / "corpus" / "test.jsonl")
    parser.add_argument(
        "--model", default=LATEST_MODEL, metavar="DIR", help=f"a model folder ({LATEST_MODEL})"
    )
    parser.add_argument("--data", default=sentences, metavar="FILE", help="where sentences are from")
    return parser


def starts(arguments: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Seconds from the command to the first good answer of /predict, and to that of the page."""
    asked = {"predict": ("POST", "/predict", b'{"texts": ["a sentence"]}'), "page": ("GET", "/", None)}
    seconds: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(arguments.starts):
        with serving(folder, arguments.model) as server, ThreadPoolExecutor() as pool:
            for name, ended in zip(asked, pool.map(partial(answered, server.port), asked.values())):
                seconds[name].append(round(ended - server.started, 2))
    return seconds


def answered(port: int, request: tuple[str, str, bytes | None]) -> float:
    """Ask once → the time at which the answer was there. Raises InputError where it is not 200."""
    method, path, body = request
    connection = http.client.HTTPConnection(HOST, port)
    connection.request(method, path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    check({answer.status: 1})
    return time.perf_counter()


def check(statuses: dict[int, int]) -> None:
    """Raises InputError for other answers than good ones: they cost less, and would be counted alike."""
    if set(statuses) - {200}:
        raise InputError(f"not all answers are good: {statuses} of each status")


def settle(server: Server) -> None:
    """Wait until it does nothing, as it does not while it learns the neighbours of sentences."""
    began, number = time.perf_counter(), server.process.pid
    before = sum(each.seconds for each in family(number))
    while time.perf_counter() < began + _PATIENCE:
        time.sleep(1)
        now = sum(each.seconds for each in family(number))
        if now - before < _QUIET:
            return
        before = now
    logger.warning(f"the server is still at work after {_PATIENCE:.0f} s: figures may be too low")


def memory(server: Server) -> float:
    """Resident MB of all its processes; what they share counts in each."""
    return round(sum(each.memory for each in family(server.process.pid)) * 1.048576, 1)


def by_turns(servers: dict[str, Server], requests: Sequence[bytes], arguments: argparse.Namespace) -> dict:
    """The closed loop, round by round; what is not counted comes first, for what is only done once."""
    found: dict[str, list[dict]] = {way: [] for way in servers}
    for number in range(-1, arguments.rounds):
        for way, server in servers.items():
            load = closed_loop(server.port, requests, arguments.clients, arguments.seconds)
            seen = measured(server, load)
            if number >= 0:
                found[way].append(seen)
                logger.info(f"round {number + 1}, {way}: {seen['rate']:,.0f} requests/s")
    return {way: joined(rounds) for way, rounds in found.items()}


def at_half(server: Server, requests: Sequence[bytes], rate: float, arguments: argparse.Namespace) -> dict:
    """The open loop at that many requests a second, with other times of arrival in each round."""
    rounds = []
    for seed in range(arguments.rounds):
        due = arrivals(rate, arguments.seconds, seed)
        rounds.append(measured(server, open_loop(server.port, requests, due)))
    return joined(rounds)


def measured(server: Server, load: Coroutine[object, object, Load]) -> dict:
    """What a load came to, the seconds that each process worked for it, and the share of others."""
    before, busy, began = spent(server), busy_seconds(), time.perf_counter()
    found = asyncio.run(load)
    seconds = time.perf_counter() - began
    work = {name: now - before.get(name, 0.0) for name, now in spent(server).items()}
    check(found.statuses)
    others = max(0.0, busy_seconds() - busy - sum(work.values())) / seconds / os.cpu_count()
    return {"rate": found.rate, "latencies": found.latencies, "work": work, "others": others}


def spent(server: Server) -> dict[str, float]:
    """Seconds of all cores so far: of the server, of the process with its model, of the clients."""
    first, *children = family(server.process.pid)
    model = sum(child.seconds for child in children)
    return {"server": first.seconds, "model": model, "clients": time.process_time()}


def joined(rounds: Sequence[dict]) -> dict:
    """Of several rounds: the rate of each, and over the requests of all, latencies and CPU time."""
    latencies = np.concatenate([each["latencies"] for each in rounds])
    middle = quantiles(latencies, list(SHARES.values()))
    return {
        "requests": len(latencies),
        "rate": [round(each["rate"], 1) for each in rounds],
        "milliseconds": {name: round(value * 1e3, 2) for name, value in zip(SHARES, middle)},
        "cpu_milliseconds_a_request": {
            name: round(sum(each["work"][name] for each in rounds) / len(latencies) * 1e3, 3)
            for name in rounds[0]["work"]
        },
        "others": [round(each["others"], 3) for each in rounds],
    }


def rows(record: dict) -> list[list[str]]:
    """A row a load: medians of rates, with the best round in brackets, latencies, CPU time a request."""
    table = [["", "requests/s", *SHARES, "CPU: server", "model", "clients"]]
    for name, load in {**record["closed_loop"], "batches, half the load": record["open_loop"]}.items():
        rates, work = load["rate"], load["cpu_milliseconds_a_request"]
        cells = [f"{statistics.median(rates):,.0f} ({max(rates):,.0f})"]
        cells += [f"{value:.1f} ms" for value in load["milliseconds"].values()]
        table.append([name, *cells, *(f"{value:.2f} ms" for value in work.values())])
    return table


def report(record: dict) -> str:
    """The record for a person."""
    started, used = record["start_seconds"], record["megabytes"]
    return "\n".join(
        [
            markdown(rows(record)),
            "",
            f"Batches bring {record['ratio']:.2f} times the requests a second of one by one.",
            f"Start: {statistics.median(started['predict']):.1f} s to the first answer of /predict, "
            f"{statistics.median(started['page']):.1f} s to the page.",
            f"Memory of all its processes: {used['before']:,.0f} MB before, {used['after']:,.0f} MB after.",
        ]
    )


if __name__ == "__main__":
    run_script(main)
