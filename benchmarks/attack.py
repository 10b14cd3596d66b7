"""What task_6.py answers while it is attacked, and how fast.

    python benchmarks/attack.py [--model DIR] [--data FILE] [--seconds S] [--only NAME,...]
        [--output FILE.json]

The server, its model, the attackers (benchmarks/attacks.py, in a process of their own) and two clients share
this machine. During each attack one client asks for /health fifty times a second, every other time on a new
connection; the other one sends a sentence to /predict, again and again, and compares each answer with that of
the quiet server. The last attacks stop and kill the model's process, and overwrite and cut the files of the
model, a copy of DIR. After each attack the server must answer every sentence as before. The last line is
JSON."""

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
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.attacks import ATTACKS
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
_NEAR = 2e-5  # of probabilities: sums of batches of another size are rounded otherwise
_QUIET = "none"


def main() -> None:
    parser = model_and_data("Attacks on task_6.py.")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each attack, which is repeated (8)")
    parser.add_argument("--only", metavar="NAME,...", help="these attacks alone")
    arguments = parse(parser)
    names = [*ATTACKS, *DAMAGES]
    chosen = arguments.only.split(",") if arguments.only else names
    if unknown := sorted(set(chosen) - set(names)):
        raise InputError(f"--only {','.join(unknown)}: the attacks are {', '.join(names)}")
    texts = [row.text for row in read_rows(arguments.data)]
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model")
        shutil.copytree(Path(arguments.model).resolve(), model)
        with serving(Path(folder), str(model)) as server:
            settle(server)
            before = logged(server)
            known = {text: predict(server.port, text)[1] for text in texts}
            results = {_QUIET: watched(server.port, known, partial(time.sleep, arguments.seconds))}
            for name in (name for name in names if name in chosen):
                if name in DAMAGES:
                    attack = partial(DAMAGES[name], server, model)
                else:
                    attack = partial(from_outside, name, server.port, arguments.seconds)
                results[name] = watched(server.port, known, attack)
                recover(server.port, known)
                print(f"{name}: {results[name]}", file=sys.stderr, flush=True)
            log = logged(server) - before
    record = {**provenance([], os.cpu_count(), PACKAGES), "results": results, "lines_of_log": log}
    print(table(record))
    finish(record, arguments.output)


def logged(server: Server) -> int:
    """Number of lines that a server has logged."""
    return len(server.messages.read_text(errors="replace").splitlines())


def from_outside(name: str, port: int, seconds: float) -> dict:
    """Run an attack in its own process → its seconds and outcomes."""
    command = [sys.executable, "-m", "benchmarks.attacks", name, str(port), str(seconds)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if ended.returncode:
        raise InputError(f"{name}: {ended.stderr.strip().splitlines()[-1]}")
    return json.loads(ended.stdout)


def stop_engine(server: Server, model: Path) -> dict:
    """The model's process is stopped (SIGSTOP)."""
    return signal_engine(server, signal.SIGSTOP)


def kill_engine(server: Server, model: Path) -> dict:
    """The model's process is killed (SIGKILL)."""
    return signal_engine(server, signal.SIGKILL)


def signal_engine(server: Server, number: int) -> dict:
    """Send a signal to the process with the model, and wait until another one answers."""
    _, *children = family(server.process.pid)
    os.kill(max(children, key=lambda child: child.memory).number, number)
    began, status = time.perf_counter(), 200
    for answered in (True, False):  # until it has no answers, and then until it has some
        while (status == 200) == answered and time.perf_counter() - began < _RECOVERY_SECONDS:
            time.sleep(0.1)
            status = predict(server.port, "a sentence")[0]
    return {"seconds": round(time.perf_counter() - began, 1), "outcomes": {"replaced": int(status == 200)}}


def overwrite_weights(server: Server, model: Path) -> dict:
    """The files of the model are overwritten in place, and then cut to nothing."""
    files = [path for path in model.rglob("*") if path.is_file()]
    for path in files:
        path.write_bytes(b"\xff" * path.stat().st_size)  # opens the same file, and does not replace it
    time.sleep(5)
    for path in files:
        os.truncate(path, 0)
    time.sleep(5)
    return {"seconds": 10.0, "outcomes": {"changed": len(files)}}


DAMAGES: dict[str, Callable[[Server, Path], dict]] = {
    "stop_engine": stop_engine,
    "kill_engine": kill_engine,
    "overwrite_weights": overwrite_weights,
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
        while not health:
            time.sleep(_HEALTH_SECONDS)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    seconds = [one for one, _ in health]
    values = dict(zip(("p50", "p99", "slowest"), [*quantiles(seconds, [0.5, 0.99]), max(seconds)]))
    return {
        **result,
        "health": {name: round(value * 1e3, 1) for name, value in values.items()},
        "health_statuses": dict(Counter(status for _, status in health)),
        "predictions": dict(predictions),
    }


def ask_health(port: int, ended: threading.Event, found: list[tuple[float, str]]) -> None:
    """Ask for /health until `ended`, every other time on a new connection."""
    kept, number = http.client.HTTPConnection(HOST, port, timeout=30), 0
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
    while True:
        for text, expected in known.items():
            if ended.is_set():
                return
            try:
                status, prediction = predict(port, text)
            except (OSError, http.client.HTTPException):
                status, prediction = 0, {}
            right = "right" if alike(prediction, expected) else "wrong"
            found[right if status == 200 else "refused"] += 1
            if status != 200:
                ended.wait(0.1)


def predict(port: int, text: str) -> tuple[int, dict]:
    """Ask for a text's prediction → the status, and the row or the problem."""
    connection = http.client.HTTPConnection(HOST, port, timeout=120)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/predict", json.dumps({"texts": [text]}), headers)
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
    """One row per attack: how much was sent and how it was answered, and what other clients saw meanwhile."""
    rows = [["attack", "sent", "answered with", "/health p99", "slowest", "right", "wrong", "refused"]]
    for name, result in record["results"].items():
        outcomes, health = result.get("outcomes", {}), result["health"]
        cells = [f"{sum(outcomes.values()):,}", ", ".join(outcomes)] if name in ATTACKS else ["", ""]
        cells += [f"{health['p99']:.0f} ms", f"{health['slowest']:.0f} ms"]
        rows.append([describe(name), *cells, *(f"{result['predictions'].get(k, 0):,}" for k in rows[0][5:])])
    return markdown(rows)


def describe(name: str) -> str:
    """What an attack is, in a line."""
    what = (ATTACKS.get(name) or DAMAGES.get(name) or watched).__doc__ or ""
    return _QUIET if name == _QUIET else " ".join(what.split()).rstrip(".")


if __name__ == "__main__":
    run_script(main)
