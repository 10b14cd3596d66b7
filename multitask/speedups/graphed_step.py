"""A training step as CUDA graphs: one for the gradients of each shape of a batch, one for the update."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from multitask.common.device import out_of_memory
from multitask.speedups.device_corpus import FILLER, DeviceCorpus, padded_length
from multitask.speedups.graph_cache import CaptureError, GraphCache, on_device

Loss = Callable[[dict[str, Tensor], tuple[Tensor, Tensor], Tensor], Tensor]
"""A batch, the divisors of both losses (0-dim) and a micro-batch's share of the step (0-dim) → the scalar to
differentiate."""


class Update(Protocol):
    """Applies gradients: see training.optimizer.OptimizerStep."""

    number: Tensor
    skipped: Tensor
    keep_gradients: bool

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
        corpus: DeviceCorpus,
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
        self.windows: dict[int, Tensor] = {}  # (rows,) the windows of a batch, by its number of rows
        self.scalars = torch.ones(3, device=self.device)  # divisors of both losses, share
        self.rates = torch.zeros(len(groups), device=self.device)
        self.used: tuple[bool, ...] = ()  # the parameters that the loss depends on
        update.keep_gradients = True

    def add_gradients(
        self, windows: np.ndarray, rows: int, divisors: tuple[float, float], share: float
    ) -> None:
        """Add the gradients of a micro-batch of at most `rows` windows to the parameters' own.

        Raises CaptureError, or torch's error if memory runs out; the gradients are then incomplete."""
        length = padded_length(int(self.lengths[windows].max()), self.longest)
        batch = self.windows.setdefault(rows, torch.zeros(rows, dtype=torch.int64, device=self.device))

        def work() -> None:
            gradients = [g for g in self._gradients(batch, length) if g is not None]
            torch._foreach_add_([p.grad for p in self.parameters if p.grad is not None], gradients)

        def warm_up() -> None:
            batch.fill_(FILLER)  # some padding, as in a real batch: then the mask is never left out
            self.scalars.fill_(1)
            self._warm_up(batch, length)

        try:
            graph = self.shapes.get((rows, length), work, warm_up)
        except (RuntimeError, MemoryError) as error:
            if not self.shapes.graphs or not out_of_memory(error):
                raise
            graph = None
        if graph is None:  # without the other shapes' graphs it may fit
            self.shapes.clear()
            graph = self.shapes.get((rows, length), work, warm_up)
        filled = np.full(rows, FILLER)
        filled[: len(windows)] = windows
        batch.copy_(on_device(filled, self.device))
        self.scalars.copy_(on_device(np.array([*divisors, share], np.float32), self.device))
        graph.replay()

    def step(self) -> None:
        """Apply the gradients, at the learning rates of the optimizer's groups, and set them to zero."""
        rates = [group["lr"] for group in self.update.optimizer.param_groups]
        self.rates.copy_(on_device(np.array(rates, np.float32), self.device))
        self.updates.graphs["step"].replay()

    def clear(self, for_good: bool = False) -> None:
        """Free the memory of all shapes' graphs; `for_good`: no graph is used again."""
        self.shapes.clear()
        if for_good:
            self.updates.clear()
            self.update.keep_gradients = False

    def _gradients(self, windows: Tensor, length: int) -> tuple[Tensor | None, ...]:
        batch = self.corpus.collate(windows, length)
        loss = self.loss(batch, (self.scalars[0], self.scalars[1]), self.scalars[2])
        return torch.autograd.grad(loss, self.parameters, allow_unused=True)

    def _warm_up(self, windows: Tensor, length: int) -> None:
        before = None if self.recorded is None else self.recorded.clone()
        gradients = self._gradients(windows, length)
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
            before = update.number.clone(), update.skipped.clone()
            gradients[0].fill_(torch.inf)  # such a step changes no weight
            work()
            update.number.copy_(before[0])
            update.skipped.copy_(before[1])

        self.updates.clear()
        self.updates.get("step", work, warm_up)
