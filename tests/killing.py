"""A process that has imported everything, and forks for each run of task_4.py that is to end in some bad way.

Requests come as lines of JSON, answers go back so: see `Runs`, which talks to it."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Outcome(NamedTuple):
    """How a run ended: exit status, or minus a signal; what it said; which changes of the disk it made."""

    status: int
    out: str
    err: str
    changes: list[list[str]]  # (kind, path)


class Runs:
    """Runs of task_4.py in a folder of their own process, one at a time."""

    def __init__(self):
        command = [sys.executable, __file__]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.server = subprocess.Popen(command, env=environment, **pipes)

    def __call__(self, folder: Path, *arguments: str, **how) -> Outcome:
        """`kill_at`: kill -9 in the middle of the disk's N-th change, a write after half of its bytes.
        `signals`: [(seconds, number)], sent so long after the start. `at_step`: {step: [numbers]}, signals
        raised by the run itself in the middle of a step. `largest_file`: bytes (RLIMIT_FSIZE)."""
        request = {"folder": str(folder), "arguments": [str(word) for word in arguments], **how}
        print(json.dumps(request), file=self.server.stdin, flush=True)
        return Outcome(**json.loads(self.server.stdout.readline()))

    def close(self) -> None:
        self.server.stdin.close()
        self.server.wait()


def serve() -> None:
    sys.path.insert(0, str(ROOT))
    import task_4  # noqa: F401 - before the fork, so that it is done once

    for line in sys.stdin:
        request = json.loads(line)
        scratch = Path(request["folder"]) / ".said"
        scratch.mkdir(parents=True, exist_ok=True)
        names = {name: scratch / name for name in ("out", "err", "changes")}
        process = os.fork()
        if process == 0:
            os._exit(child(request, names))
        started = time.monotonic()
        for seconds, number in request.get("signals", ()):
            while time.monotonic() - started < seconds:
                time.sleep(0.001)
            if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                os.kill(process, number)
        _, status = os.waitpid(process, 0)
        said = {name: path.read_text() if path.exists() else "" for name, path in names.items()}
        said["changes"] = [line.split(" ", 1) for line in said["changes"].splitlines()]
        for path in names.values():
            path.unlink(missing_ok=True)
        scratch.rmdir()
        print(json.dumps({"status": os.waitstatus_to_exitcode(status), **said}), flush=True)


def child(request: dict, names: dict[str, Path]) -> int:
    """The forked process → its exit status."""
    import task_4
    from multitask import errors

    os.chdir(request["folder"])
    for handle, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(names[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), handle)
    count_changes(request.get("kill_at", 0), os.open(names["changes"], os.O_WRONLY | os.O_CREAT))
    raise_signals({int(step): numbers for step, numbers in request.get("at_step", {}).items()})
    if "largest_file" in request:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest_file"], resource.RLIM_INFINITY))
    sys.argv = ["task_4.py", *request["arguments"]]
    status = 0
    try:
        errors.run(task_4.main)
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 99
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def count_changes(kill_at: int, handle: int) -> None:
    """Put in the place of `disk` one that writes down what it does, and may be the last that is done."""
    from multitask import output

    number, real = 0, output.disk

    def disk(kind, path, call, *arguments):
        nonlocal number
        number += 1
        os.write(handle, f"{kind} {path}\n".encode())
        if number == kill_at:
            if kind == "write":
                call(bytes(arguments[0])[: len(arguments[0]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(kind, path, call, *arguments)

    output.disk = disk


def raise_signals(at_step: dict[int, list[int]]) -> None:
    """Let the run send itself signals in the middle of a step."""
    import task_4

    real = task_4.gradients

    def gradients(run, *arguments):
        result = real(run, *arguments)
        for number in at_step.pop(run.steps + 1, ()):
            os.kill(os.getpid(), number)
        return result

    task_4.gradients = gradients


if __name__ == "__main__":
    serve()
