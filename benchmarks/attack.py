"""What task_6.py answers while it is attacked, and how fast.

    python benchmarks/attack.py [--model DIR] [--data FILE] [--only NAME,...] [--output FILE.json]

The server, its model, the attackers (benchmarks/attacks.py, in a process of their own) and two clients share
this machine. During each attack one client asks for /health fifty times a second, every other time on a new
connection; the other one sends a sentence to /predict, again and again, and compares each answer with that of
the quiet server. The last attacks stop and kill the model's process, and overwrite and cut the files of the
model, of which the server has a copy of its own here. After each attack the server must answer as before.
The last line is JSON."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.attacks import ATTACKS, describe
from benchmarks.http_load import HOST, quantiles
from benchmarks.processes import family
from benchmarks.provenance import finish, parse, provenance
from benchmarks.serve import PACKAGES, model_and_data, settle
from benchmarks.server import Server, serving
from benchmarks.tables import markdown
from multitask.common.errors import InputError
from multitask.common.shell import run_script
from multitask.data.texts import read_rows

_HEALTH_SECONDS = 0.02  # between two requests
_RECOVERY_SECONDS = 120.0  # in which a server must answer again
_QUIET_SECONDS = 5.0  # before the first attack
_NEAR = 2e-5  # of probabilities: sums of batches of another size are rounded otherwise


def main() -> None:
    parser = model_and_data("Attacks on task_6.py.")
    parser.add_argument("--only", metavar="NAME,...", help="these attacks alone")
    arguments = parse(parser)
    names = list(ATTACKS) + list(DAMAGE)
    chosen = arguments.only.split(",") if arguments.only else names
    if unknown := sorted(set(chosen) - set(names)):
        raise InputError(f"--only {','.join(unknown)}: the attacks are {', '.join(names)}")
    texts = [row.text for row in read_rows(arguments.data)]
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model")
        shutil.copytree(Path(arguments.model).resolve(), model)
        with serving(Path(folder), str(model)) as server:
            settle(server)
            expected = [predict(server.port, text)[1] for text in texts]
            known = dict(zip(texts, expected))
            results["quiet"] = watched(server.port, known, lambda: time.sleep(_QUIET_SECONDS))
            for name in names:
                if name in chosen:
                    attack = (lambda one=name: outside(one, server.port)) if name in ATTACKS else None
                    results[name] = watched(
                        server.port, known, attack or (lambda one=name: DAMAGE[one](server, model))
                    )
                    recover(server.port, known)
                    print(f"{name}: {row(name, results[name])}", file=sys.stderr, flush=True)
            lines = server.messages.read_text(errors="replace").splitlines()
    record = {**provenance([], os.cpu_count(), PACKAGES), "results": results, "lines of log": len(lines)}
    print(table(record))
    finish(record, arguments.output)


def outside(name: str, port: int) -> dict:
    """Run an attack in its own process → its seconds and outcomes."""
    command = [sys.executable, "-m", "benchmarks.attacks", name, str(port)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if ended.returncode:
        raise InputError(f"{name}: {ended.stderr.strip().splitlines()[-1]}")
    return json.loads(ended.stdout)


def engine(server: Server) -> int:
    """The number of the process with the model: the child with most memory."""
    _, *children = family(server.process.pid)
    return max(children, key=lambda child: child.memory).number


def stop_engine(server: Server, model: Path) -> dict:
    """The model's process is stopped (SIGSTOP), until the server replaces it."""
    number = engine(server)
    os.kill(number, signal.SIGSTOP)
    return until_ended(number)


def kill_engine(server: Server, model: Path) -> dict:
    """The model's process is killed (SIGKILL)."""
    number = engine(server)
    os.kill(number, signal.SIGKILL)
    return until_ended(number)


def until_ended(number: int) -> dict:
    """Wait until a process has ended, and for ten seconds more."""
    began = time.perf_counter()
    while Path(f"/proc/{number}").exists() and time.perf_counter() - began < _RECOVERY_SECONDS:
        time.sleep(0.1)
    seconds = time.perf_counter() - began
    time.sleep(10)
    return {"seconds": round(seconds, 1), "outcomes": {}}


def overwrite_weights(server: Server, model: Path) -> dict:
    """The bytes of all files of the model are overwritten in place, and the files are cut to nothing."""
    for content in (b"\xff", b""):
        for path in model.rglob("*"):
            if path.is_file():
                size = path.stat().st_size
                with open(path, "r+b") as file:
                    file.write(content * size)
                    file.truncate(size if content else 0)
        time.sleep(5)
    return {"seconds": 10.0, "outcomes": {}}


DAMAGE: dict[str, Callable[[Server, Path], dict]] = {
    one.__name__: one for one in (stop_engine, kill_engine, overwrite_weights)
}


def watched(port: int, known: dict[str, dict], attack: Callable[[], dict | None]) -> dict:
    """Run an attack → what it returns, the latencies and statuses of /health, and a count of right, wrong and
    refused predictions meanwhile."""
    ended, health, predictions = threading.Event(), [], Counter()
    threads = [
        threading.Thread(target=ask_health, args=(port, ended, health)),
        threading.Thread(target=ask_predict, args=(port, ended, known, predictions)),
    ]
    for thread in threads:
        thread.start()
    try:
        result = attack() or {}
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    seconds = [one for one, _ in health]
    middle, rare = quantiles(seconds, [0.5, 0.99])
    milliseconds = {"p50": middle, "p99": rare, "slowest": max(seconds)}
    return {
        **result,
        "health": {name: round(value * 1e3, 1) for name, value in milliseconds.items()},
        "health statuses": dict(Counter(status for _, status in health)),
        "predictions": dict(predictions),
    }


def ask_health(port: int, ended: threading.Event, found: list[tuple[float, str]]) -> None:
    """Ask for /health until `ended`, every other time on a new connection."""
    kept = http.client.HTTPConnection(HOST, port, timeout=30)
    number = 0
    while not ended.wait(_HEALTH_SECONDS):
        number += 1
        connection = kept if number % 2 else http.client.HTTPConnection(HOST, port, timeout=30)
        began = time.perf_counter()
        try:
            connection.request("GET", "/health")
            answer = connection.getresponse()
            answer.read()
            status = str(answer.status)
        except (OSError, http.client.HTTPException) as error:
            status = type(error).__name__
            connection.close()
        found.append((time.perf_counter() - began, status))
        if connection is not kept:
            connection.close()
    kept.close()


def ask_predict(port: int, ended: threading.Event, known: dict[str, dict], found: Counter) -> None:
    """Ask for predictions until `ended`, and compare them."""
    texts = list(known)
    for number in range(1 << 30):
        if ended.is_set():
            return
        text = texts[number % len(texts)]
        try:
            status, prediction = predict(port, text)
        except (OSError, http.client.HTTPException):
            found["closed"] += 1
            time.sleep(0.1)
            continue
        if status == 200:
            found["right" if alike(prediction, known[text]) else "wrong"] += 1
        else:
            found[str(status)] += 1
            time.sleep(0.1)


def predict(port: int, text: str) -> tuple[int, dict]:
    """Ask for a text's prediction → the status, and the row or the problem."""
    connection = http.client.HTTPConnection(HOST, port, timeout=120)
    connection.request(
        "POST", "/predict", json.dumps({"texts": [text]}), {"Content-Type": "application/json"}
    )
    answer = connection.getresponse()
    content = json.loads(answer.read())
    connection.close()
    return answer.status, content["predictions"][0] if answer.status == 200 else content


def alike(found: object, expected: object) -> bool:
    """Whether two values of JSON are equal, up to the rounding of numbers."""
    if isinstance(found, float) and isinstance(expected, float):
        return abs(found - expected) <= _NEAR
    if isinstance(found, dict) and isinstance(expected, dict):
        return found.keys() == expected.keys() and all(alike(found[key], expected[key]) for key in found)
    if isinstance(found, list) and isinstance(expected, list):
        return len(found) == len(expected) and all(map(alike, found, expected))
    return found == expected


def recover(port: int, known: dict[str, dict]) -> None:
    """Wait until a server answers all texts as before. Raises InputError if it does not."""
    end = time.perf_counter() + _RECOVERY_SECONDS
    for text, expected in known.items():
        while (found := predict(port, text))[0] == 503 and time.perf_counter() < end:
            time.sleep(0.2)
        if not alike(found[1], expected):
            raise InputError(f"after the attack, {text!r} gets {found}")


def table(record: dict) -> str:
    """One row per attack: how it was answered, and what /health and /predict did meanwhile."""
    rows = [
        ["attack", "answered with", "/health p50", "p99", "slowest", "predictions: right", "wrong", "503"]
    ]
    return markdown([*rows, *(row(name, result) for name, result in record["results"].items())], left=2)


def row(name: str, result: dict) -> list[str]:
    what = (
        describe(name)
        if name in ATTACKS
        else " ".join((DAMAGE[name].__doc__ or "").split()).rstrip(".")
        if name in DAMAGE
        else "none"
    )
    outcomes = ", ".join(f"{outcome} × {count}" for outcome, count in result.get("outcomes", {}).items())
    health, predictions = result["health"], result["predictions"]
    cells = [f"{health[which]:.0f} ms" for which in ("p50", "p99", "slowest")]
    return [what, outcomes, *cells, *(str(predictions.get(which, 0)) for which in ("right", "wrong", "503"))]


if __name__ == "__main__":
    run_script(main)
