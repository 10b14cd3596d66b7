"""A training step as CUDA graphs: one for the gradients of each shape of a batch, one for the update."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from multitask.common.device import out_of_memory
from multitask.speedups.device_corpus import DeviceCorpus, padded_length
from multitask.speedups.graph_cache import CaptureError, GraphCache, on_device
from multitask.speedups.host_corpus import HostCorpus

Loss = Callable[[dict[str, Tensor], tuple[Tensor, Tensor], Tensor], Tensor]
"""A batch, the divisors of both losses (0-dim) and a micro-batch's share of the step (0-dim) → the scalar to
differentiate."""


class Update(Protocol):
    """Applies gradients: see training.optimizer.OptimizerStep."""

    keep_gradients: bool

    @property
    def counters(self) -> list[Tensor]:
        """What a step changes besides weights, moments and gradients."""
        ...

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer of all parameters."""
        ...

    def apply(self) -> None:
        """Change the weights and set the gradients to zero, without waiting for the device."""


class GraphedStep:
    """The gradients and the update of a training step, replayed as CUDA graphs.

    Batches are padded to `rows` windows and to one of a few lengths. What is added has no labels: its losses
    and gradients are exactly 0. Gradients live in tensors that never change their place.

    Args:
        corpus: forms the batches.
        lengths: (V,) tokens of each window; `longest`: the tokens that the encoder can read.
        loss: computes the scalar. It may add to the tensor `recorded`, and must not wait for the device.
        update: applies the gradients of its optimizer's parameters."""

    def __init__(
        self,
        corpus: DeviceCorpus | HostCorpus,
        lengths: np.ndarray,
        longest: int,
        loss: Loss,
        update: Update,
        recorded: Tensor | None = None,
    ):
        self.corpus, self.lengths, self.longest = corpus, lengths, longest
        self.loss, self.update, self.recorded = loss, update, recorded
        groups = update.optimizer.param_groups
        self.parameters: list[nn.Parameter] = [p for group in groups for p in group["params"]]
        self.device = self.parameters[0].device
        self.shapes, self.updates = GraphCache(self.device), GraphCache(self.device)
        self.inputs: dict[tuple[int, int], dict[str, Tensor]] = {}  # of a batch, by its shape
        self.scalars = torch.ones(3, device=self.device)  # divisors of both losses, share
        self.rates = torch.zeros(len(groups), device=self.device)
        self.used: tuple[bool, ...] = ()  # the parameters that the loss depends on
        update.keep_gradients = True

    def add_gradients(
        self, windows: np.ndarray, rows: int, divisors: tuple[float, float], share: float
    ) -> None:
        """Add the gradients of a micro-batch of at most `rows` windows to the parameters' own.

        Raises CaptureError, or torch's error if memory runs out; the gradients are then incomplete."""
        shape = rows, self._length(windows)
        if shape not in self.inputs:
            self.inputs[shape] = self.corpus.inputs(*shape)
        inputs = self.inputs[shape]

        def work() -> None:
            gradients = [g for g in self._gradients(inputs, shape[1]) if g is not None]
            torch._foreach_add_([p.grad for p in self.parameters if p.grad is not None], gradients)

        def warm_up() -> None:
            # some padding, as in a real batch: then the mask is never left out
            self.corpus.fill(inputs, windows[:0], *shape)
            self.scalars.fill_(1)
            self._warm_up(inputs, shape[1])

        try:
            graph = self.shapes.get(shape, work, warm_up)
        except (RuntimeError, MemoryError) as error:
            if not self.shapes.graphs or not out_of_memory(error):
                raise
            graph = None
        if graph is None:  # without the other shapes' graphs it may fit
            self.shapes.clear()
            graph = self.shapes.get(shape, work, warm_up)
        self.corpus.fill(inputs, windows, *shape)
        self.scalars.copy_(on_device(np.array([*divisors, share], np.float32), self.device))
        graph.replay()

    def prefetch(self, parts: list[np.ndarray], rows: int) -> None:
        """Begin to form the micro-batches of the next step, where this takes time."""
        for windows in parts:
            self.corpus.prefetch(windows, rows, self._length(windows))

    def step(self) -> None:
        """Apply the gradients, at the learning rates of the optimizer's groups, and set them to zero."""
        rates = [group["lr"] for group in self.update.optimizer.param_groups]
        self.rates.copy_(on_device(np.array(rates, np.float32), self.device))
        self.updates.graphs["step"].replay()

    def clear(self, for_good: bool = False) -> None:
        """Free the memory of all shapes' graphs; `for_good`: no graph is used again."""
        self.shapes.clear()
        self.inputs.clear()
        if for_good:
            self.updates.clear()
            self.corpus.close()
            self.update.keep_gradients = False

    def _length(self, windows: np.ndarray) -> int:
        return padded_length(int(self.lengths[windows].max()), self.longest)

    def _gradients(self, inputs: dict[str, Tensor], length: int) -> tuple[Tensor | None, ...]:
        batch = self.corpus.batch(inputs, length)
        loss = self.loss(batch, (self.scalars[0], self.scalars[1]), self.scalars[2])
        return torch.autograd.grad(loss, self.parameters, allow_unused=True)

    def _warm_up(self, inputs: dict[str, Tensor], length: int) -> None:
        before = None if self.recorded is None else self.recorded.clone()
        gradients = self._gradients(inputs, length)
        if self.recorded is not None and before is not None:
            self.recorded.copy_(before)
        used = tuple(gradient is not None for gradient in gradients)
        if self.used and used != self.used:
            raise CaptureError("the loss depends on other parameters than before")
        if self.used:
            return
        self.used = used
        for parameter, has_gradient in zip(self.parameters, used):
            if has_gradient and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        static = [p.grad for p in self.parameters if p.grad is not None]
        torch._foreach_add_(static, [g for g in gradients if g is not None])  # all are 0: loads the kernel
        self._capture_update(static)

    def _capture_update(self, gradients: list[Tensor]) -> None:
        """Capture the update, while all gradients are 0."""
        update, optimizer = self.update, self.update.optimizer
        for parameter in self.parameters:
            if parameter.grad is not None and parameter not in optimizer.state:
                optimizer.state[parameter] = {
                    "step": torch.zeros((), device=self.device),
                    "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                    "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                }

        def work() -> None:
            groups = optimizer.param_groups
            before = [(group["lr"], group["capturable"]) for group in groups]
            for group, rate in zip(groups, self.rates.unbind()):
                # capturable: torch asks for it in a capture, and warns of it elsewhere
                group["lr"], group["capturable"] = rate, self.updates.capturing
            try:
                update.apply()
            finally:
                for group, (rate, capturable) in zip(groups, before):
                    group["lr"], group["capturable"] = rate, capturable

        def warm_up() -> None:
            before = [counter.clone() for counter in update.counters]
            gradients[0].fill_(torch.inf)  # such a step changes no weight
            work()
            for counter, value in zip(update.counters, before):
                counter.copy_(value)

        self.updates.clear()
        self.updates.get("step", work, warm_up)
