"""A process that has imported everything, and forks for each run of task_4.py that must end badly.

Requests and answers are lines of JSON. `Runs` sends the requests."""

import json
import os
import resource
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Outcome(NamedTuple):
    """How a run ended: exit status or minus the signal, its output, and its changes of the disk."""

    status: int
    out: str
    err: str
    changes: list[list[str]]  # (kind, path)
    statuses: list[int]  # of all processes of the run


class Runs:
    """Runs of task_4.py, one at a time, in new processes that need not import anything."""

    def __init__(self):
        command = [sys.executable, __file__]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.server = subprocess.Popen(command, env=environment, **pipes)

    def __call__(self, folder: Path, *arguments: str, **how) -> Outcome:
        """Run task_4.py in a folder.

        Args:
            kill_at: kill -9 in the middle of the disk's N-th change; a write ends after half of its bytes.
            signals: [(seconds after the start, number)] to send.
            at_step: {step: [numbers]}, signals that the run sends itself in the middle of a step, or after
                training ("finish"). `ranks`: the processes that do so, if not all.
            largest_file: bytes.
            processes: how many processes train together; the outcome has the status of the first one."""
        request = {"folder": str(folder), "arguments": [str(word) for word in arguments], **how}
        print(json.dumps(request), file=self.server.stdin, flush=True)
        return Outcome(*json.loads(self.server.stdout.readline()))

    def close(self) -> None:
        self.server.stdin.close()
        self.server.wait()


def make_quick(set_attribute) -> None:
    """Make reports without pictures: most tests are about something else."""
    from multitask.evaluation import report

    set_attribute(report.Report, "picture", lambda self, alt, draw: None)


def serve() -> None:
    sys.path.insert(0, str(ROOT))
    import task_4  # noqa: F401 - before the fork, so that it is done once

    make_quick(setattr)
    for line in sys.stdin:
        request = json.loads(line)
        pipes = {name: os.pipe() for name in ("out", "err", "changes")}
        processes = fork(request, [write for _, write in pipes.values()])
        for _, write in pipes.values():
            os.close(write)
        with ThreadPoolExecutor(len(pipes)) as readers:
            texts = {name: readers.submit(read_all, read) for name, (read, _) in pipes.items()}
            send(processes[0], request.get("signals", ()))
            statuses = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
        out, err, changes = (texts[name].result() for name in pipes)
        listed = [line.split(" ", 1) for line in changes.splitlines()]
        print(json.dumps([statuses[0], out, err, listed, statuses]), flush=True)


def fork(request: dict, handles: list[int]) -> list[int]:
    """Start the processes of a run → their ids. Several processes find each other as those of torchrun do."""
    size, processes = request.get("processes", 1), []
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for rank in range(size):
        process = os.fork()
        if process == 0:
            if rank not in request.get("ranks", [rank]):
                del request["at_step"]
            if size > 1:
                group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", **{name: str(n) for name, n in group.items()}}
            os._exit(child(request, *handles))
        processes.append(process)
    return processes


def read_all(handle: int) -> str:
    with open(handle, encoding="utf-8") as pipe:
        return pipe.read()


def send(process: int, signals: list[tuple[float, int]]) -> None:
    """Send signals to a process: (seconds from now, number)."""
    started = time.monotonic()
    for seconds, number in signals:
        time.sleep(max(0, started + seconds - time.monotonic()))
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            os.kill(process, number)


def child(request: dict, out: int, err: int, changes: int) -> int:
    """What the forked process does → its exit status."""
    import task_4
    from benchmarks.forks import kill_at
    from multitask.common import shell

    os.chdir(request["folder"])
    os.dup2(out, 1)
    os.dup2(err, 2)
    kill_at(request.get("kill_at", 0), lambda kind, path: os.write(changes, f"{kind} {path}\n".encode()))
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


def raise_signals(at_step: dict[str, list[int]]) -> None:
    """Make the run send itself signals in the middle of a step, or after training ("finish")."""
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
