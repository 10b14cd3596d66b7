"""The device of a run, its precision and its attention implementation; the threads of a CPU."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multitask.common.errors import InputError

if TYPE_CHECKING:  # torch is imported in functions: the settings need device_name alone
    import torch

logger = logging.getLogger(__name__)


def device_name(value: Any) -> str:
    """Check that a value names a device: cpu, cuda or cuda:N → the same value. Raises ValueError if not."""
    if not isinstance(value, str) or not re.fullmatch(r"cpu|cuda(:\d+)?", value):
        raise ValueError("a device is cpu, cuda or cuda:1")
    return value


def choose_device(name: str) -> torch.device:
    """The torch device of that name; without CUDA, the CPU and a warning.

    Raises InputError for an unknown name, for a CUDA device that the machine lacks, and if a launcher has
    started several processes, since each would do all the work."""
    import torch

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("started as one of several processes, which only training supports: start it once")
    try:
        device = torch.device(device_name(name))
    except ValueError as error:
        raise InputError(f"device: {error}, not {name}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        logger.warning("CUDA is not available: using the CPU (device: cpu does so without this line)")
        return torch.device("cpu")
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.index is not None and device.index >= count:
        raise InputError(f"device: {name}; this machine has {count} CUDA devices, from cuda:0")
    return device


def usable_cpus(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """The number of CPUs that this process may use: those of its affinity and, in a container, no more than
    the quota of its control group."""
    count = _allowed_cpus()
    try:
        quota, period = quota_file.read_text().split()
        return count if quota == "max" else max(1, min(count, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):
        return count


def _allowed_cpus() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def prepare_threads(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> None:
    """Set how torch's threads wait and, in a container with a quota, how many there are. Only environment
    variables that are not set are set; torch reads them when it is imported.

    A thread of OpenMP that waits for others spins for a while before it sleeps. Beside a busy process the
    spinning takes the time of the work itself. A short spin costs nothing on a quiet machine (measured by
    benchmarks/busy.py, docs/results.md)."""
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "1000"
    if (usable := usable_cpus(quota_file)) < _allowed_cpus():
        os.environ.setdefault("OMP_NUM_THREADS", str(usable))


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The precision of matrix multiplications. "auto": bfloat16 where the device supports it, else float32.

    CPUs support it with AMX or AVX512-BF16, CUDA from compute capability 8.0 (Ampere). Elsewhere it is
    emulated: on a Xeon without either, linear layers ran at 62 GFLOP/s in bfloat16 and at 220 in float32.
    "bf16" uses it there too, with a warning that it is slow."""
    import torch

    if name == "fp32":
        return torch.float32
    if device.type == "cuda":
        supported = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        capabilities = torch.cpu.get_capabilities()
        supported = bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    if name == "bf16" and not supported:
        logger.warning(f"precision bf16 is emulated on this device ({device}), and slow; auto takes fp32")
    return torch.bfloat16 if supported or name == "bf16" else torch.float32


def autocast(device: torch.device, precision: torch.dtype) -> contextlib.AbstractContextManager:
    """Autocast to `precision`. Parameters, their gradients and the losses stay in float32."""
    import torch

    if precision == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, precision)


def choose_attention(name: str, device: torch.device, precision: torch.dtype) -> str:
    """The attention implementation to train with, as transformers names it. "auto": eager for bfloat16 on a
    CPU, else sdpa.

    On a CPU in bfloat16 the backward pass of torch's flash attention is slow: 32 sequences of 12 tokens took
    55 ms per layer, eager attention 9. In float32 sdpa is faster at every length from 8 to 256 (5.6 ms and
    10.8 at 12, 42 and 71 at 256; one thread of a Xeon at 2.8 GHz, 12 heads of 32)."""
    if name != "auto":
        return name
    import torch

    return "eager" if device.type == "cpu" and precision == torch.bfloat16 else "sdpa"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the memory of the device or of the machine is too small."""
    import torch

    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))
