"""A process that has imported everything, and forks for each run of task_4.py that is to end in some bad way.

Requests come as lines of JSON, answers go back so: see `Runs`, which talks to it."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
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
        raised by the run itself in the middle of it, or when it has trained ("finish"). `largest_file`:
        bytes."""
        request = {"folder": str(folder), "arguments": [str(word) for word in arguments], **how}
        print(json.dumps(request), file=self.server.stdin, flush=True)
        return Outcome(**json.loads(self.server.stdout.readline()))

    def close(self) -> None:
        self.server.stdin.close()
        self.server.wait()


def make_quick(set_attribute) -> None:
    """Let the reports of runs have no pictures: most tests are about something else."""
    from multitask.evaluation import report

    set_attribute(report.Report, "picture", lambda self, alt, draw: None)


def serve() -> None:
    sys.path.insert(0, str(ROOT))
    import task_4  # noqa: F401 - before the fork, so that it is done once

    make_quick(setattr)
    for line in sys.stdin:
        request = json.loads(line)
        said = {name: os.pipe() for name in ("out", "err", "changes")}
        process = os.fork()
        if process == 0:
            os._exit(child(request, *(write for _, write in said.values())))
        for _, write in said.values():
            os.close(write)
        reading = ThreadPoolExecutor(len(said))
        texts = {name: reading.submit(everything, read) for name, (read, _) in said.items()}
        send(process, request.get("signals", ()))
        _, status = os.waitpid(process, 0)
        said = {name: text.result() for name, text in texts.items()}
        reading.shutdown()
        said["changes"] = [line.split(" ", 1) for line in said["changes"].splitlines()]
        print(json.dumps({"status": os.waitstatus_to_exitcode(status), **said}), flush=True)


def everything(handle: int) -> str:
    with open(handle, encoding="utf-8") as pipe:
        return pipe.read()


def send(process: int, signals: list[tuple[float, int]]) -> None:
    """Send a process signals, each so many seconds from now."""
    started = time.monotonic()
    for seconds, number in signals:
        time.sleep(max(0, started + seconds - time.monotonic()))
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            os.kill(process, number)


def child(request: dict, out: int, err: int, changes: int) -> int:
    """The forked process → its exit status."""
    import task_4
    from multitask.common import shell

    os.chdir(request["folder"])
    os.dup2(out, 1)
    os.dup2(err, 2)
    count_changes(request.get("kill_at", 0), changes)
    raise_signals(request.get("at_step", {}))
    if "largest_file" in request:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest_file"], resource.RLIM_INFINITY))
    sys.argv = ["task_4.py", *request["arguments"]]
    status = 0
    try:
        shell.run_script(task_4.main)
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
    from multitask.common import atomic_files

    number, real = 0, atomic_files.disk

    def disk(kind, path, call, *arguments):
        nonlocal number
        number += 1
        os.write(handle, f"{kind} {path}\n".encode())
        if number == kill_at:
            if kind == "write":
                call(bytes(arguments[0])[: len(arguments[0]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(kind, path, call, *arguments)

    atomic_files.disk = disk


def raise_signals(at_step: dict[str, list[int]]) -> None:
    """Let the run send itself signals in the middle of a step, or of finishing ("finish")."""
    import task_4

    real, real_finish = task_4.gradients, task_4.finish

    def gradients(trainer, *arguments):
        real(trainer, *arguments)
        for number in at_step.pop(str(trainer.steps + 1), ()):
            os.kill(os.getpid(), number)

    def finish(*arguments):
        for number in at_step.pop("finish", ()):
            os.kill(os.getpid(), number)
        return real_finish(*arguments)

    task_4.gradients, task_4.finish = gradients, finish


if __name__ == "__main__":
    serve()
