"""The device that a run is on, and what it computes in there."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from typing import TYPE_CHECKING, Any

from multitask.common.errors import InputError

if TYPE_CHECKING:  # the settings need the names of devices only
    import torch

logger = logging.getLogger(__name__)


def device_name(value: Any) -> str:
    """The name of a device, as given. Raises ValueError for any other."""
    if not isinstance(value, str) or not re.fullmatch(r"cpu|cuda(:\d+)?", value):
        raise ValueError("a device is cpu, cuda or cuda:1")
    return value


def choose_device(name: str) -> torch.device:
    """The device of that name; the CPU, and a line that says so, for cuda where there is no CUDA.

    Raises InputError for a name that is none, for a CUDA device beyond those of the machine, and where a
    launcher has started several processes, each of which would do the whole work."""
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


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """What products of matrices are computed in: for "auto" bfloat16 where the device has it, else float32.

    A CPU has it with AMX or AVX512-BF16, CUDA from compute capability 8.0 (Ampere). Elsewhere it is emulated:
    on a Xeon without either, linear layers ran at 62 GFLOP/s in bfloat16 and at 220 in float32. Asked for by
    name it is used there too, and a line says that it is slow."""
    import torch

    if name == "fp32":
        return torch.float32
    has = _has_bf16(device)
    if name == "bf16" and not has:
        logger.warning(f"precision bf16 is emulated on this device ({device}), and slow; auto takes fp32")
    return torch.bfloat16 if has or name == "bf16" else torch.float32


def _has_bf16(device: torch.device) -> bool:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    able = torch.cpu.get_capabilities()
    return bool(able.get("amx_bf16") or able.get("avx512_bf16"))


def autocast(device: torch.device, precision: torch.dtype) -> contextlib.AbstractContextManager:
    """Computes in `precision` what bears it. Parameters, their gradients and the losses stay in float32."""
    import torch

    if precision == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, precision)


def choose_attention(name: str, device: torch.device, precision: torch.dtype) -> str:
    """transformers' name of the attention to train with: for "auto" sdpa, but eager for bfloat16 on a CPU.

    There the backward pass of torch's flash attention is slow: 32 sequences of 12 tokens took 55 ms a layer,
    plain attention 9. In float32 it is ahead at every length from 8 to 256 (5.6 ms against 10.8 at 12, 42
    against 71 at 256; one thread of a Xeon at 2.8 GHz, 12 heads of 32)."""
    import torch

    if name != "auto":
        return name
    return "eager" if device.type == "cpu" and precision == torch.bfloat16 else "sdpa"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the device, or of the machine, does not suffice."""
    import torch

    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))
