"""The device that a run is on."""

import os

import torch

from multitask.errors import InputError, say
from multitask.settings import device_name


def choose_device(name: str) -> torch.device:
    """The device of that name; the CPU, and a line that says so, for cuda where there is no CUDA.

    Raises InputError for a name that is none, for a CUDA device beyond those of the machine, and where a
    launcher has started several processes, each of which would do the whole work."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("started as one of several processes, which is not supported: start it once")
    try:
        device = torch.device(device_name(name))
    except ValueError as error:
        raise InputError(f"device: {error}, not {name}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        say("CUDA is not available: using the CPU (device: cpu does so without this line)")
        return torch.device("cpu")
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.index is not None and device.index >= count:
        raise InputError(f"device: {name}; this machine has {count} CUDA devices, from cuda:0")
    return device
