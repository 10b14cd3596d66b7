"""A command as a process of its own: its time, its peak memory, and whether others kept the machine busy.

Nothing here or in comparison.py imports torch: Linux counts the peak memory of the process that starts
another as the other's too, so that one has to be small."""

import os
import platform
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from multitask.common.errors import InputError

_LOAD = 0.7  # of the last minute, a core, before the first run; after that it is mostly that of these runs
_OTHERS = 0.1  # share of all cores
_GPU_MEMORY = ("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits")


class Spent(NamedTuple):
    """Of a process: seconds, peak memory in MiB (gpu_memory: None without a GPU), the machine's load a core
    before it, and the share of all cores that others used meanwhile (None where that can't be known)."""

    seconds: float
    memory: float
    gpu_memory: float | None
    load: float
    others: float | None


def measured(command: Sequence[str], root: Path, folder: Path, gpu: int | None = None) -> Spent:
    """Run a command to its end, with `root` to import from and what it says in `folder`.

    `gpu`: the number of the one whose memory is watched. Raises InputError with the command's own words where
    it fails."""
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    watch = None if gpu is None else GpuMemory(gpu)
    load, busy, started = os.getloadavg()[0] / os.cpu_count(), busy_seconds(), time.perf_counter()
    with open(folder / "stderr", "w+", errors="replace") as said:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=said, env={**os.environ, "PYTHONPATH": path}
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if process.returncode is None:
                process.kill()
        seconds = time.perf_counter() - started
        said.seek(0)
        check(process.returncode, said.read())
    own = usage.ru_utime + usage.ru_stime
    others = None if busy is None else max(0.0, busy_seconds() - busy - own) / seconds / os.cpu_count()
    return Spent(seconds, usage.ru_maxrss / 1024, watch and watch.peak(), load, others)


def is_busy(runs: Sequence[Spent], first: bool) -> bool:
    """Whether other work disturbed one of the runs; `first`: the first of them began the comparison."""
    before = first and runs[0].load > _LOAD
    return before or any((run.others or 0) > _OTHERS for run in runs)


class GpuMemory:
    """The most memory that a GPU's processes took since now, asked for five times a second."""

    def __init__(self, number: int):
        self._command = [*_GPU_MEMORY, f"--id={number}"]
        self._before = self._now()
        self._most, self._ended = self._before, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def peak(self) -> float | None:
        """MiB above what was taken at the start; None where nvidia-smi gives no answer."""
        self._ended.set()
        self._thread.join()
        return None if self._before is None else self._most - self._before

    def _watch(self) -> None:
        while self._before is not None and not self._ended.wait(0.2):
            self._most = max(self._most, self._now() or 0.0)

    def _now(self) -> float | None:
        try:
            return float(subprocess.run(self._command, capture_output=True, check=True).stdout)
        except (OSError, subprocess.CalledProcessError, ValueError):
            return None


class Process(NamedTuple):
    """Of a process: its number, the one that started it, seconds of all its threads, resident MiB."""

    number: int
    parent: int
    seconds: float
    memory: float


def family(number: int) -> list[Process]:
    """A process and all that it and its children started, itself first; [] where it has ended."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()  # a name may have blanks and brackets
        except OSError:  # it has ended
            continue
        ticks, pages = int(fields[11]) + int(fields[12]), int(fields[21])
        memory = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        process = Process(int(path.parent.name), int(fields[1]), ticks / os.sysconf("SC_CLK_TCK"), memory)
        found[process.number] = process
    members = [found[number]] if number in found else []
    for member in members:  # which grows meanwhile
        members += [each for each in found.values() if each.parent == member.number]
    return members


def cpu() -> tuple[str, list[str]]:
    """The processor's name and its vector extensions, where the system tells them."""
    info = Path("/proc/cpuinfo")
    fields = {}
    for line in info.read_text().splitlines() if info.exists() else []:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = [flag for flag in fields.get("flags", "").split() if flag.startswith(("avx", "amx", "fma"))]
    return fields.get("model name", platform.machine()), flags


def check(status: int, said: str) -> None:
    """Raises InputError with what the command said at its end."""
    if status:
        _, mark, error = f"\n{said}".rpartition("\nerror: ")
        lines = said.strip().splitlines()
        raise InputError(
            error.strip() if mark else f"a run ended with status {status}: {(lines or [''])[-1]}"
        )


def busy_seconds() -> float | None:
    """Seconds that all cores worked since the system started, those taken by its host counted."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _idle, _wait, irq, soft, steal = map(int, stat.read_text().split()[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
