"""A job of benchmarks/cluster.py: the command in a process of its own, which is watched."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from statistics import median

from benchmarks.processes import Process, anonymous_memory, busy_seconds, family

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
KINDS = ("command", "worker", "Ray")


class Job:
    """task_5.py predict in a process of its own, whose memory is read every second. No workers: no Ray."""

    def __init__(self, scratch: Path, name: str, workers: int, shard_rows: int):
        self.out, self.shard_rows = scratch / f"out-{re.sub(r'[^a-z0-9]', '', name)}", shard_rows
        self.workers = workers or 1
        shutil.rmtree(self.out, ignore_errors=True)
        words = ["--input", name, "--output", self.out.name, "--model", "model", "--device", "cpu"]
        words += ["--shard-rows", str(shard_rows)]
        self.command = [sys.executable, str(ROOT / "task_5.py"), "predict", *words]
        engine = ["ray", "--workers", str(workers)] if workers else ["local"]
        command = [*self.command, "--engine", *engine]
        self.busy, self.started, self.samples = busy_seconds() or 0, time.perf_counter(), []
        self.process = subprocess.Popen(command, cwd=scratch)
        self.watch = threading.Thread(target=self._watch)
        self.watch.start()

    def wait(self) -> None:
        status = self.process.wait()
        self.seconds = time.perf_counter() - self.started
        self.watch.join()
        if status:
            raise RuntimeError(f"the job ended with status {status}")
        spent = (busy_seconds() or 0) - self.busy
        own = max((sample["cpu"] for sample in self.samples), default=0)
        self.others = max(0.0, spent - own) / self.seconds / (os.cpu_count() or 1)

    def rate(self) -> float:
        """Rows per second after each worker has finished its first shard."""
        pq = import_module("pyarrow.parquet")
        parts = sorted((path.stat().st_mtime_ns, path) for path in self.out.glob("part-*"))
        first, last = parts[self.workers - 1][0], parts[-1][0]
        rows = sum(pq.read_metadata(path).num_rows for _, path in parts[self.workers :])
        return rows / (last - first) * 1e9

    def kill_a_worker(self, after: int) -> None:
        """Kill one of the workers when so many rows are written."""
        while self.process.poll() is None and len(list(self.out.glob("part-*"))) * self.shard_rows < after:
            time.sleep(0.1)
        worker = next(one for one, kind in kinds(self.process.pid) if kind == "worker")
        os.kill(worker.number, signal.SIGKILL)

    def memory(self) -> dict[str, list[float]]:
        """MiB of each kind of process, after a fifth of the time and at the end: medians of ten samples."""
        working = [sample for sample in self.samples if sample["worker"]]
        at = len(working) // 5
        early, late = working[at : at + 10], working[-12:-2]
        return {kind: [median(sample[kind] for sample in part) for part in (early, late)] for kind in KINDS}

    def _watch(self) -> None:
        spent: dict[int, float] = {}  # CPU seconds of each process, the ended ones too
        while self.process.poll() is None:
            sample = {"seconds": round(time.perf_counter() - self.started, 1), **dict.fromkeys(KINDS, 0.0)}
            for one, kind in kinds(self.process.pid):
                memory, spent[one.number] = anonymous_memory(one.number) / MIB, one.seconds
                sample[kind] = max(sample[kind], memory) if kind == "worker" else sample[kind] + memory
            self.samples.append({**sample, "cpu": sum(spent.values())})
            time.sleep(1)


def kinds(command: int) -> Iterator[tuple[Process, str]]:
    """The processes of a job, each with its kind; `command` is the first of them."""
    for one in family(command):
        try:
            line = Path(f"/proc/{one.number}/cmdline").read_text(errors="replace")
        except OSError:  # it has ended
            continue
        kind = "worker" if line.startswith("ray::_Actor") else "Ray"
        yield one, "command" if one.number == command else kind
