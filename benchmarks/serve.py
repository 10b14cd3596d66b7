"""Requests per second and latency of task_6.py, with and without batches.

    python benchmarks/serve.py [--model DIR] [--data FILE] [--clients N] [--seconds S] [--rounds N]
        [--starts N] [--output FILE.json]

The server runs on this machine in its own processes, the clients run in this one: they share the cores.
Closed loop: each of --clients clients sends one sentence to /predict, again and again; in each round to a
server that joins requests into batches, and to one whose model reads one sentence at a time. Open loop:
requests arrive at random times (Poisson) at half the rate of the closed loop and do not wait for earlier
responses; latency is measured from the time at which a request was due. Start: the time from the command to
the first response of /predict, and to that of the page. The last line is JSON."""

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

MODES = {"batches": TASK_6, "one by one": (str(ROOT / "benchmarks" / "serve_unbatched.py"),)}
SHARES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
PACKAGES = ("torch", "fastapi", "uvicorn", "uvloop", "httptools", "gradio")
_IDLE, _TIMEOUT = 0.15, 120.0  # CPU seconds per second; seconds


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
            for mode, words in MODES.items():
                (folder / mode).mkdir()
                servers[mode] = stack.enter_context(serving(folder / mode, arguments.model, words))
            for server in servers.values():
                settle(server)
            first = servers["batches"]
            before = memory(first)
            closed = by_turns(servers, requests, arguments)
            peak, single = (statistics.median(closed[mode]["rate"]) for mode in MODES)
            record |= {"closed_loop": closed, "ratio": round(peak / single, 2)}
            record["open_loop"] = at_half(first, requests, peak / 2, arguments)
            record["megabytes"] = {"before": before, "after": memory(first)}
    print(report(record))
    finish(record, arguments.output)


def options() -> argparse.Namespace:
    parser = model_and_data("Load on task_6.py.")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round (5)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--starts", type=int, default=3, help="number of timed starts (3)")
    return parse(parser)


def model_and_data(description: str) -> argparse.ArgumentParser:
    """A command line with a model and sentences for it."""
    parser = argparse.ArgumentParser(description=description)
    sentences = str(ROOT / "corpus" / "test.jsonl")
    parser.add_argument(
        "--model", default=LATEST_MODEL, metavar="DIR", help=f"a model folder ({LATEST_MODEL})"
    )
    parser.add_argument("--data", default=sentences, metavar="FILE", help="a file with sentences")
    return parser


def starts(arguments: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Seconds from the command to the first response of /predict, and to that of the page."""
    requests = {"predict": ("POST", "/predict", b'{"texts": ["a sentence"]}'), "page": ("GET", "/", None)}
    seconds: dict[str, list[float]] = {name: [] for name in requests}
    for _ in range(arguments.starts):
        with serving(folder, arguments.model) as server, ThreadPoolExecutor() as pool:
            for name, ended in zip(requests, pool.map(partial(answered, server.port), requests.values())):
                seconds[name].append(round(ended - server.started, 2))
    return seconds


def answered(port: int, request: tuple[str, str, bytes | None]) -> float:
    """Send one request → the time of the response. Raises InputError if its status is not 200."""
    method, path, body = request
    connection = http.client.HTTPConnection(HOST, port)
    connection.request(method, path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    check({answer.status: 1})
    return time.perf_counter()


def check(statuses: dict[int, int]) -> None:
    """Raises InputError for other statuses than 200: failed requests cost less and must not be counted."""
    if set(statuses) - {200}:
        raise InputError(f"some requests failed; responses by status: {statuses}")


def settle(server: Server) -> None:
    """Wait until the server is idle: after its start it embeds the sentences of the corpus for a while."""
    began, number = time.perf_counter(), server.process.pid
    before = sum(process.seconds for process in family(number))
    while time.perf_counter() < began + _TIMEOUT:
        time.sleep(1)
        now = sum(process.seconds for process in family(number))
        if now - before < _IDLE:
            return
        before = now
    logger.warning(f"the server is still busy after {_TIMEOUT:.0f} s: the rates may be too low")


def memory(server: Server) -> float:
    """Resident MB of all processes of the server; shared memory counts in each."""
    return round(sum(process.memory for process in family(server.process.pid)) * 1.048576, 1)


def by_turns(servers: dict[str, Server], requests: Sequence[bytes], arguments: argparse.Namespace) -> dict:
    """The closed loop in rounds, on each server in turn. The first round is a warm-up and is not counted."""
    results: dict[str, list[dict]] = {mode: [] for mode in servers}
    for number in range(-1, arguments.rounds):
        for mode, server in servers.items():
            load = closed_loop(server.port, requests, arguments.clients, arguments.seconds)
            result = measured(server, load)
            if number >= 0:
                results[mode].append(result)
                logger.info(f"round {number + 1}, {mode}: {result['rate']:,.0f} requests/s")
    return {mode: combine(rounds) for mode, rounds in results.items()}


def at_half(server: Server, requests: Sequence[bytes], rate: float, arguments: argparse.Namespace) -> dict:
    """The open loop at `rate` requests per second, with new arrival times in each round."""
    rounds = []
    for seed in range(arguments.rounds):
        due = arrivals(rate, arguments.seconds, seed)
        rounds.append(measured(server, open_loop(server.port, requests, due)))
    return combine(rounds)


def measured(server: Server, load: Coroutine[object, object, Load]) -> dict:
    """Run a load → its rate and latencies, the CPU seconds of each process, and the share of other load."""
    before, busy, began = spent(server), busy_seconds(), time.perf_counter()
    result = asyncio.run(load)
    seconds = time.perf_counter() - began
    work = {name: now - before.get(name, 0.0) for name, now in spent(server).items()}
    check(result.statuses)
    others = max(0.0, busy_seconds() - busy - sum(work.values())) / seconds / os.cpu_count()
    return {"rate": result.rate, "latencies": result.latencies, "work": work, "others": others}


def spent(server: Server) -> dict[str, float]:
    """CPU seconds so far of the server, of the process with its model, and of the clients."""
    first, *children = family(server.process.pid)
    model = sum(child.seconds for child in children)
    return {"server": first.seconds, "model": model, "clients": time.process_time()}


def combine(rounds: Sequence[dict]) -> dict:
    """The rate of each round, and latencies and CPU time over the requests of all rounds."""
    latencies = np.concatenate([result["latencies"] for result in rounds])
    middle = quantiles(latencies, list(SHARES.values()))
    return {
        "requests": len(latencies),
        "rate": [round(result["rate"], 1) for result in rounds],
        "milliseconds": {name: round(value * 1e3, 2) for name, value in zip(SHARES, middle)},
        "cpu_milliseconds_a_request": {
            name: round(sum(result["work"][name] for result in rounds) / len(latencies) * 1e3, 3)
            for name in rounds[0]["work"]
        },
        "others": [round(result["others"], 3) for result in rounds],
    }


def rows(record: dict) -> list[list[str]]:
    """One row per load: median rate, with the best round in brackets, latencies, and CPU time per request."""
    table = [["", "requests/s", *SHARES, "CPU: server", "model", "clients"]]
    for name, load in {**record["closed_loop"], "batches, half the load": record["open_loop"]}.items():
        rates, work = load["rate"], load["cpu_milliseconds_a_request"]
        cells = [f"{statistics.median(rates):,.0f} ({max(rates):,.0f})"]
        cells += [f"{value:.1f} ms" for value in load["milliseconds"].values()]
        table.append([name, *cells, *(f"{value:.2f} ms" for value in work.values())])
    return table


def report(record: dict) -> str:
    """The record as text."""
    started, used = record["start_seconds"], record["megabytes"]
    return "\n".join(
        [
            markdown(rows(record)),
            "",
            f"With batches it answers {record['ratio']:.2f} times as many requests per second.",
            f"Start: {statistics.median(started['predict']):.1f} s to the first response of /predict, "
            f"{statistics.median(started['page']):.1f} s to the page.",
            f"Memory of its processes: {used['before']:,.0f} MB before, {used['after']:,.0f} MB after.",
        ]
    )


if __name__ == "__main__":
    run_script(main)
