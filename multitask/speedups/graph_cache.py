"""CUDA graphs: work on a GPU that is recorded once and then launched as a whole."""

from collections.abc import Callable, Hashable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from multitask.common.device import out_of_memory

Work = Callable[[], object]

# not cuDNN's, which are compiled anew for every shape
_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class CaptureError(RuntimeError):
    """Work that CUDA can't record."""


class Replayable(Protocol):
    """Work that can be repeated."""

    def replay(self) -> None:
        """Do the work once. Does not wait for the device."""


class GraphCache:
    """Work by key, captured as a CUDA graph at its first use. On another device the work itself runs.

    A short training step is bound by its launches: the GPU waits for Python, which launches some 2,000
    kernels one by one. A graph launches them all at once. Work must read and write the same tensors at every
    replay, and must not wait for the device. The graphs share one memory pool, since one runs at a time: they
    take about as much as the largest of them."""

    def __init__(self, device: torch.device):
        self.device = device
        self.graphs: dict[Hashable, Replayable] = {}
        self.on_gpu = device.type == "cuda"
        if self.on_gpu:
            self.stream = torch.cuda.Stream(device)
            self.pool = torch.cuda.graph_pool_handle()

    def get(self, key: Hashable, work: Work, warm_up: Work) -> Replayable:
        """The captured work of that key. Capturing it runs nothing but `warm_up`, which must load the same
        kernels and leave no trace; random states are restored after it.

        Raises CaptureError if CUDA can't record the work, and torch's own error if memory runs out."""
        if key not in self.graphs:
            with sdpa_kernel(_ATTENTION):
                with torch.random.fork_rng([self.device] if self.on_gpu else []):
                    self._warm_up(warm_up)
                self.graphs[key] = self._capture(work) if self.on_gpu else _Plain(work)
        return self.graphs[key]

    @property
    def capturing(self) -> bool:
        """Whether work is being captured at the moment."""
        return self.on_gpu and torch.cuda.is_current_stream_capturing()

    def clear(self) -> None:
        """Forget all graphs and free their memory."""
        self.graphs.clear()
        if self.on_gpu:
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()
            self.pool = torch.cuda.graph_pool_handle()

    def _warm_up(self, warm_up: Work) -> None:
        if not self.on_gpu:
            warm_up()
            return
        # on the stream of the capture, because cuBLAS has a workspace for each stream
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            warm_up()
        current.wait_stream(self.stream)

    def _capture(self, work: Work) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: other threads may use the device meanwhile
            with torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"):
                work()
        except RuntimeError as error:
            # an error in the work is the context of the one that ends the capture
            causes = error, error.__context__
            if memory := next((cause for cause in causes if cause and out_of_memory(cause)), None):
                raise memory from None
            raise CaptureError(str(error.__context__ or error).splitlines()[0]) from error
        return graph


def on_device(array: np.ndarray, device: torch.device) -> Tensor:
    """An array as a tensor on the device. For memory that is not pinned, CUDA might wait for its work."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


class _Plain:
    def __init__(self, work: Work):
        self.work = work

    def replay(self) -> None:
        self.work()
