"""Runs a command in its own process and measures its time, its peak memory and the load from others.

Nothing here or in comparison.py imports torch: Linux counts the peak memory of a process also for a process
that it starts, which means that the starting process must be small."""

import os
import platform
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from multitask.common.errors import InputError

_LOAD = 0.7  # load per core in the minute before the first run; later, the load is that of the runs
_OTHERS = 0.1  # share of all cores
_GPU_MEMORY = ("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits")


class Spent(NamedTuple):
    """What a process used."""

    seconds: float
    memory: float  # peak, MiB
    gpu_memory: float | None  # peak, MiB; None without a GPU
    load: float  # of the machine before it, per core
    others: float | None  # share of all cores that other processes used meanwhile; None if not known


def measured(command: Sequence[str], root: Path, folder: Path, gpu: int | None = None) -> Spent:
    """Run a command to its end and measure it.

    Args:
        root: a folder from which it can import.
        folder: gets its messages, in the file `stderr`.
        gpu: the number of the GPU whose memory is measured.

    Raises:
        InputError: it failed; the text is its own last message."""
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    watch = None if gpu is None else GpuMemory(gpu)
    load, busy, started = os.getloadavg()[0] / os.cpu_count(), busy_seconds(), time.perf_counter()
    with open(folder / "stderr", "w+", errors="replace") as messages:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=messages, env={**os.environ, "PYTHONPATH": path}
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if process.returncode is None:
                process.kill()
        seconds = time.perf_counter() - started
        messages.seek(0)
        check(process.returncode, messages.read())
    own = usage.ru_utime + usage.ru_stime
    others = None if busy is None else max(0.0, busy_seconds() - busy - own) / seconds / os.cpu_count()
    return Spent(seconds, usage.ru_maxrss / 1024, watch and watch.peak(), load, others)


def is_busy(runs: Sequence[Spent], first: bool) -> bool:
    """Whether other load disturbed one of the runs. `first`: runs[0] is the first run of the comparison."""
    before = first and runs[0].load > _LOAD
    return before or any((run.others or 0) > _OTHERS for run in runs)


class GpuMemory:
    """The peak memory of a GPU from now on, measured five times per second."""

    def __init__(self, number: int):
        self._command = [*_GPU_MEMORY, f"--id={number}"]
        self._before = self._now()
        self._peak, self._ended = self._before, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def peak(self) -> float | None:
        """Peak MiB above those used at the start; None if nvidia-smi does not work."""
        self._ended.set()
        self._thread.join()
        return None if self._before is None else self._peak - self._before

    def _watch(self) -> None:
        while self._before is not None and not self._ended.wait(0.2):
            self._peak = max(self._peak, self._now() or 0.0)

    def _now(self) -> float | None:
        try:
            return float(subprocess.run(self._command, capture_output=True, check=True).stdout)
        except (OSError, subprocess.CalledProcessError, ValueError):
            return None


class Process(NamedTuple):
    """A process of this machine."""

    number: int  # process id
    parent: int
    seconds: float  # CPU time of all its threads
    memory: float  # resident MiB


def family(number: int) -> list[Process]:
    """A process and all its descendants, itself first; [] if it has ended."""
    processes = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()  # a name may contain blanks and brackets
        except OSError:  # it has ended
            continue
        ticks, pages = int(fields[11]) + int(fields[12]), int(fields[21])
        memory = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        process = Process(int(path.parent.name), int(fields[1]), ticks / os.sysconf("SC_CLK_TCK"), memory)
        processes[process.number] = process
    members = [processes[number]] if number in processes else []
    for member in members:  # the list grows meanwhile
        members += [child for child in processes.values() if child.parent == member.number]
    return members


def anonymous_memory(number: int | str) -> int:
    """Anonymous memory of a process in bytes, which no file backs; 0 if it has ended. "self": of this one."""
    try:
        lines = Path(f"/proc/{number}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def cpu() -> tuple[str, list[str]]:
    """The name of the processor and its vector extensions, as far as the system reports them."""
    info = Path("/proc/cpuinfo")
    fields = {}
    for line in info.read_text().splitlines() if info.exists() else []:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = [flag for flag in fields.get("flags", "").split() if flag.startswith(("avx", "amx", "fma"))]
    return fields.get("model name", platform.machine()), flags


def check(status: int, messages: str) -> None:
    """Raises InputError with the last message of a command if its exit status is not 0."""
    if status:
        _, mark, error = f"\n{messages}".rpartition("\nerror: ")
        lines = messages.strip().splitlines()
        raise InputError(
            error.strip() if mark else f"a run ended with status {status}: {(lines or [''])[-1]}"
        )


def busy_seconds() -> float | None:
    """Busy seconds of all cores since the system started, with those that its host took; None if unknown."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _idle, _wait, irq, soft, steal = map(int, stat.read_text().split()[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
