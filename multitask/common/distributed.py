"""Communication between processes that train one model, started by torchrun or accelerate launch.

In a single process, every function returns its own values at once. Several processes must call the functions
in the same order."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from multitask.common.errors import InputError
from multitask.common.shell import hide_messages

if TYPE_CHECKING:  # torch is imported in functions: an exported model runs without it
    import torch
    from torch import nn
    from torch.distributed import ProcessGroup

T = TypeVar("T")


def init_processes(name: str) -> torch.device:
    """Join the processes that a launcher has started, if any → this process's device.

    Only the first process shows messages and results: the others' are the same. Raises InputError as
    `choose_device` does.

    Args:
        name: device, "cpu", "cuda" or "cuda:1". Several processes get one GPU each for any CUDA name."""
    import torch

    from multitask.common.device import choose_device

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return choose_device(name)
    # imported before the group exists: else the default arguments of its functions keep the group to the end
    import torch.distributed.nn
    from accelerate import PartialState  # type: ignore[import-untyped]  # no types

    state = PartialState(cpu=name == "cpu" or not torch.cuda.is_available())
    atexit.register(_destroy_groups)
    if rank():
        hide_messages()
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    return torch.device("cpu") if state.device.type == "cpu" else state.device


def _destroy_groups() -> None:
    """Destroy the process groups before the interpreter shuts down, however the run ends.

    Drop every reference to a group: its threads would keep running, and one that frees a tensor while the
    interpreter shuts down aborts the process (pytorch/pytorch#190489)."""
    _cpu_group.cache_clear()
    gc.collect()  # DistributedDataParallel is part of a reference cycle
    if dist := _initialized():
        dist.destroy_process_group()


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if (dist := _initialized()) else 0


def is_first_process() -> bool:
    """Whether this is the first of the processes that a launcher started, also before they have joined."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def disable_progress_bar() -> bool | None:
    """tqdm's `disable`: only the first process shows a bar, and (None) only in a terminal."""
    return True if rank() else None


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if (dist := _initialized()) else 1


@contextmanager
def main_process_first() -> Iterator[None]:
    """Context of a block that the first process runs before the others, which use the files that it has made.

    If it fails in the first process, that raises its error, and the others exit with status 2."""
    # accelerate's main_process_first would leave the others waiting after an error
    if rank() and any_process([False])[0]:
        sys.exit(2)
    failed = True
    try:
        yield
        failed = False
    finally:
        if not rank():
            any_process([failed])


@contextmanager
def lost_process_as_error() -> Iterator[None]:
    """In this block, the loss of another process is an InputError, instead of an error of gloo or NCCL."""
    try:
        yield
    except RuntimeError as error:
        kinds = ("gloo/transport", "NCCL", "Connection closed by peer", "Timed out waiting")
        if world_size() == 1 or not any(kind in str(error) for kind in kinds):
            raise
        raise InputError(
            f"process {rank()} of {world_size()} has lost another one, which was killed, or whose machine or "
            "network failed; its own messages say more. Start all processes again with --resume"
        ) from None


def wrap_ddp(model: nn.Module, device: torch.device) -> nn.Module:
    """The model to call forward on: wrapped to average gradients over the processes, if there are several."""
    if world_size() == 1:
        return model
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(
        model, device_ids=[device] if device.type == "cuda" else None, forward_sync_buffers=False
    )


def sync_only_last(model: nn.Module, last: bool) -> AbstractContextManager:
    """Context of a micro-batch: only the last one of a step sends gradients to the other processes.

    `model` is what `wrap_ddp` returned."""
    from torch.nn.parallel import DistributedDataParallel

    return nullcontext() if last or not isinstance(model, DistributedDataParallel) else model.no_sync()


def all_reduce(values: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over all processes, in place → the same tensor."""
    if dist := _initialized():  # accelerate's reduce would copy it
        dist.all_reduce(values)
    return values


def any_process(flags: Sequence[bool]) -> list[bool]:
    """For each flag, whether it is set in one process or more. Does not wait for the device."""
    if (dist := _initialized()) is None:
        return list(flags)
    import torch

    counts = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(counts, group=_cpu_group())
    return [count > 0 for count in counts.tolist()]


def all_gather(part: T) -> list[T]:
    """The parts of all processes, in rank order, in every process."""
    if (dist := _initialized()) is None:
        return [part]
    parts: list = [None] * world_size()
    dist.all_gather_object(parts, part, _cpu_group())
    return parts


def scatter(parts: Sequence[T]) -> T:
    """Send part i of the first process to process i → this process's part. Other `parts` are ignored."""
    if (dist := _initialized()) is None:
        return parts[0]
    received: list = [None]
    dist.scatter_object_list(received, None if rank() else list(parts), group=_cpu_group())
    return received[0]


def gather(part: T) -> list[T] | None:
    """The parts of all processes, in rank order, in the first process; None in the others."""
    if (dist := _initialized()) is None:
        return [part]
    parts: list | None = None if rank() else [None] * world_size()
    dist.gather_object(part, parts, group=_cpu_group())
    return parts


@cache
def _cpu_group() -> ProcessGroup:
    """All processes, connected by gloo. accelerate's gather_object uses NCCL, which waits for the device."""
    return _initialized().new_group(backend="gloo")


def broadcast_weights(model: nn.Module) -> None:
    """Copy the first process's parameters to all processes, in place."""
    if world_size() > 1:
        from accelerate.utils import broadcast  # type: ignore[import-untyped]  # no types

        broadcast([parameter.data for parameter in model.parameters()])


def share_of_rows(size: int) -> tuple[int, int]:
    """This process's share [first, last) of `size` rows. The shares, in rank order, cover all rows."""
    return size * rank() // world_size(), size * (rank() + 1) // world_size()


def concatenate(part: np.ndarray) -> np.ndarray:
    """The arrays (n, ...) of all processes, concatenated in rank order, in every process."""
    return part if world_size() == 1 else np.concatenate(all_gather(part))


def _initialized() -> Any:
    """The module torch.distributed if several processes have joined, else None."""
    torch = sys.modules.get("torch")
    return torch.distributed if torch and torch.distributed.is_initialized() else None
