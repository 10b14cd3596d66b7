"""Several processes that train one model: started by torchrun or accelerate launch, on CPUs or GPUs.

In one process, every function here gives what is there."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from multitask.common.shell import hide_messages

if TYPE_CHECKING:  # an exported model answers in one process, without torch
    import torch
    from torch import distributed, nn

T = TypeVar("T")


def init_processes(name: str) -> torch.device:
    """Meet the other processes, if a launcher has started some → the device of this one.

    Only the first process speaks: the others' messages and results are its own over again."""
    import torch

    from multitask.common.device import choose_device

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return choose_device(name)
    # before there is a group, which its functions would have as the default of an argument, to the very end
    import torch.distributed.nn
    from accelerate import PartialState  # it knows the launchers, and what connects which devices

    state = PartialState(cpu=name == "cpu" or not torch.cuda.is_available())
    atexit.register(_leave)
    if rank():
        hide_messages()
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    return torch.device("cpu") if state.device.type == "cpu" else state.device


def _leave() -> None:
    """Part from the other processes, while the interpreter is whole and however the run ends.

    Nothing may refer to a group any more: its threads would go on, and one that lets go of a tensor when the
    interpreter has begun to end aborts the process (pytorch/pytorch#190489)."""
    _between_cpus.cache_clear()
    gc.collect()  # DistributedDataParallel is part of a cycle
    if group := _group():
        group.destroy_process_group()


def rank() -> int:
    """This process's number, from 0."""
    return group.get_rank() if (group := _group()) else 0


def disable_progress_bar() -> bool | None:
    """tqdm's `disable`: the first process has a bar, where it has a terminal."""
    return True if rank() else None


def world_size() -> int:
    """How many processes there are."""
    return group.get_world_size() if (group := _group()) else 1


@contextmanager
def main_process_first() -> Iterator[None]:
    """The first process does the block before the others, which find what it has kept. Where it fails they
    end, with the status of a mistake, and it says why."""
    if rank() and any_process([False])[0]:
        sys.exit(2)
    failed = True
    try:
        yield
        failed = False
    finally:
        if not rank():
            any_process([failed])


def wrap_ddp(model: nn.Module, device: torch.device) -> nn.Module:
    """What to call forward on: the model, or around it what averages gradients over all processes."""
    if world_size() == 1:
        return model
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(
        model, device_ids=[device] if device.type == "cuda" else None, forward_sync_buffers=False
    )


def sync_only_last(model: nn.Module, last: bool) -> AbstractContextManager:
    """Around a micro-batch: only the last one of a step sends gradients to the other processes."""
    return nullcontext() if last or world_size() == 1 else model.no_sync()


def all_reduce(values: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, in place."""
    if world_size() > 1:
        _group().all_reduce(values)
    return values


def any_process(flags: Sequence[bool]) -> list[bool]:
    """Which of these hold in one process or more. No device is waited for."""
    if world_size() == 1:
        return list(flags)
    import torch

    found = torch.tensor(flags, dtype=torch.int32)
    _group().all_reduce(found, group=_between_cpus())
    return [n > 0 for n in found.tolist()]


def all_gather(part: T) -> list[T]:
    """The parts of all processes, in their order."""
    if world_size() == 1:
        return [part]
    parts: list = [None] * world_size()
    _group().all_gather_object(parts, part, _between_cpus())
    return parts


def scatter(parts: Sequence[T]) -> T:
    """This process's part of those that the first one gives; what the others give is not looked at."""
    if world_size() == 1:
        return parts[0]
    mine: list = [None]
    _group().scatter_object_list(mine, None if rank() else list(parts), group=_between_cpus())
    return mine[0]


def gather(part: T) -> list[T] | None:
    """The parts of all processes, in their order, for the first one; None for the others."""
    if world_size() == 1:
        return [part]
    parts: list | None = None if rank() else [None] * world_size()
    _group().gather_object(part, parts, group=_between_cpus())
    return parts


@cache
def _between_cpus() -> distributed.ProcessGroup:
    """All processes, joined by gloo, whatever joins their devices."""
    return _group().new_group(backend="gloo")


def broadcast_weights(model: nn.Module) -> None:
    """Give all processes the first one's parameters."""
    if world_size() > 1:
        for parameter in model.parameters():
            _group().broadcast(parameter.data, 0)


def share_of_rows(size: int) -> tuple[int, int]:
    """This process's part [first, last) of so many rows; the parts of all processes follow each other."""
    return size * rank() // world_size(), size * (rank() + 1) // world_size()


def concatenate(part: np.ndarray) -> np.ndarray:
    """The parts (n, ...) of all processes, in their order."""
    return part if world_size() == 1 else np.concatenate(all_gather(part))


def _group():
    """torch.distributed, where several processes have met; else None."""
    torch = sys.modules.get("torch")
    return torch.distributed if torch and torch.distributed.is_initialized() else None
