"""The device of a run, its precision and its attention implementation; the threads of a CPU."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multitask.common.errors import InputError

if TYPE_CHECKING:  # torch is imported in functions: the settings need device_name alone
    import torch

logger = logging.getLogger(__name__)


def device_name(value: Any) -> str:
    """Check that a value names a device: auto, cpu, mps, cuda or cuda:N → the same value. Raises ValueError
    if not."""
    if not isinstance(value, str) or not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise ValueError("a device is auto, cpu, mps, cuda or cuda:1")
    return value


def choose_device(name: str) -> torch.device:
    """The torch device of that name. "auto": CUDA, else MPS (Apple's GPUs), else the CPU. Without CUDA, or
    without MPS, a GPU's name gives the CPU and a warning.

    Raises InputError for an unknown name, for a CUDA device that the machine lacks, and if a launcher has
    started several processes, since each would do all the work."""
    import torch

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("started as one of several processes, which only training supports: start it once")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    try:
        if device_name(name) == "auto":
            name = next(kind for kind, here in available.items() if here)
    except ValueError as error:
        raise InputError(f"device: {error}, not {name}") from None
    device = torch.device(name)
    if not available[device.type]:
        kind = device.type.upper()
        logger.warning(f"{kind} is not available: using the CPU (device: cpu does so without this line)")
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
    """The data type of matrix multiplications. "auto": bfloat16 where the device supports it, else float32.

    CPUs support it with AMX or AVX512-BF16, CUDA from compute capability 8.0 (Ampere). Elsewhere it is
    emulated: on a Xeon without either, linear layers ran at 62 GFLOP/s in bfloat16 and at 220 in float32.
    "bf16" uses it there too, with a warning that it is slow, and "fp16" likewise on any CPU. "tf32" is
    float32, whose multiplications `float32_products` may round."""
    import torch

    if name in ("fp32", "tf32"):
        if name == "tf32" and device.type == "cuda" and not _has_tensor_cores(device):
            logger.warning(f"precision tf32: this device ({device}) lacks it and computes in fp32")
        return torch.float32
    if name == "fp16":
        if device.type == "cpu":
            logger.warning("precision fp16 is for GPUs, and slow on a CPU; auto takes bf16 or fp32")
        return torch.float16
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        supported = bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
        # a person may limit torch to older instructions, by ATEN_CPU_CAPABILITY
        supported &= torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")
    else:
        supported = _has_tensor_cores(device)
    if name == "bf16" and not supported and device.type != "mps":
        logger.warning(f"precision bf16 is emulated on this device ({device}), and slow; auto takes fp32")
    return torch.bfloat16 if supported or name == "bf16" else torch.float32


def _has_tensor_cores(device: torch.device) -> bool:
    """Whether a GPU multiplies bfloat16 and TF32: NVIDIA's do from compute capability 8.0 (Ampere)."""
    import torch

    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


@contextlib.contextmanager
def float32_products(tf32: bool) -> Iterator[None]:
    """In this block CUDA rounds the factors of float32 matrix multiplications to TF32, whose mantissa has 10
    bits instead of 23; or, without `tf32`, never rounds them."""
    import torch

    matmul = torch.backends.cuda.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, "tf32" if tf32 else "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision = before


@contextlib.contextmanager
def use_threads(count: int | None) -> Iterator[None]:
    """In this block torch uses that many threads on a CPU; None: as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def autocast(device: torch.device, precision: torch.dtype) -> contextlib.AbstractContextManager:
    """Autocast to `precision`. Parameters, their gradients and the losses stay in float32."""
    import torch

    if precision == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, precision)


def choose_attention(
    name: str, device: torch.device, precision: torch.dtype, known: tuple[str, ...] = ("eager", "sdpa")
) -> str:
    """The attention implementation to train with, as transformers names it. "auto": eager for bfloat16 on a
    CPU, else sdpa, if the encoder has it (`known`).

    On a CPU in bfloat16 the backward pass of torch's flash attention is slow: 32 sequences of 12 tokens took
    55 ms per layer, eager attention 9. In float32 sdpa is faster at every length from 8 to 256 (5.6 ms and
    10.8 at 12, 42 and 71 at 256; one thread of a Xeon at 2.8 GHz, 12 heads of 32)."""
    if name != "auto":
        return name
    import torch

    if "sdpa" not in known:
        return known[0]
    return "eager" if device.type == "cpu" and precision == torch.bfloat16 else "sdpa"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the memory of the device or of the machine is too small."""
    import torch

    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    others = "DefaultCPUAllocator", "MPS backend out of memory"
    return known or (isinstance(error, RuntimeError) and any(name in str(error) for name in others))


def sum_type(device: torch.device) -> torch.dtype:
    """The data type of sums of many numbers: float64, or float32 on MPS, which has no float64."""
    import torch

    return torch.float32 if device.type == "mps" else torch.float64


def random_state(device: torch.device) -> torch.Tensor | None:
    """The state of a GPU's random generator; None for the CPU, which has torch's own."""
    import torch

    if device.type == "mps":
        return torch.mps.get_rng_state()
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def set_random_state(state: torch.Tensor, device: torch.device) -> None:
    """Set the state of a GPU's random generator."""
    import torch

    if device.type == "mps":
        torch.mps.set_rng_state(state)
    elif device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
