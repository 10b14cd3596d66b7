"""The device that a run is on."""

import torch

from multitask.errors import InputError, say


def choose_device(name: str) -> torch.device:
    """ "cpu", "cuda" or "cuda:1" → a device that is there; the CPU, and a line that says so, without CUDA.

    Raises InputError for a CUDA device beyond those of the machine."""
    if not name.startswith("cuda"):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        say("CUDA is not available: using the CPU (device: cpu does so without this line)")
        return torch.device("cpu")
    device = torch.device(name)
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise InputError(
            f"device: {name}; this machine has {torch.cuda.device_count()} CUDA devices, from cuda:0"
        )
    return device
