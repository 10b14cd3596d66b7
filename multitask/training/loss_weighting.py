"""Combines the losses of the two tasks into one, and measures how far their gradients agree."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from multitask.config.schema import TrainingSettings

Counts = tuple[float | Tensor, float | Tensor]  # of a step's labelled items (A, B)


class LossWeighting(nn.Module):
    """A weight for each task's loss: fixed, learned (uncertainty), or set after every epoch (dwa).

    Learned weights are in `parameters()`, for the optimizer; the state dict holds all that a resumed run
    needs. A single task has the weight 1."""

    epoch_means: Tensor  # (2, tasks), only for dwa

    def __init__(self, settings: TrainingSettings, tasks: tuple[str, ...]):
        super().__init__()
        self.tasks, self.temperature = tasks, settings.dwa_temperature
        self.rule = settings.loss_weighting if len(tasks) > 1 else "fixed"
        self.fixed = [getattr(settings.loss_weights, task) if len(tasks) > 1 else 1.0 for task in tasks]
        if self.rule == "uncertainty":
            self.log_variances = nn.Parameter(torch.zeros(len(tasks)))
        if self.rule == "dwa":  # mean losses of the epoch before the last one, and of the last one
            self.register_buffer("epoch_means", torch.full((2, len(tasks)), torch.nan))

    def forward(self, losses: dict[str, Tensor], share: float | Tensor = 1.0) -> Tensor:
        """The scalar to call backward on.

        Args:
            losses: the micro-batch's share of each task's loss (0-dim); the shares add up to the step's loss.
            share: 1 / number of micro-batches of the step, over all processes; thus what does not come from
                the losses counts once per step."""
        total = sum(factor * losses[task] for task, factor in zip(self.tasks, self._factors()))
        assert isinstance(total, Tensor)  # there is at least one task
        if self.rule == "uncertainty":
            total = total + share * self.log_variances.sum() / 2
        return total

    @torch.no_grad()
    def weights(self) -> dict[str, float]:
        """The current weights, for the log."""
        return {task: float(factor) for task, factor in zip(self.tasks, self._factors())}

    @torch.no_grad()
    def end_epoch(self, means: dict[str, float]) -> None:
        """Record each task's mean loss over the finished epoch."""
        if self.rule == "dwa":
            last = self.epoch_means.new_tensor([means[task] for task in self.tasks])
            self.epoch_means.copy_(torch.stack([self.epoch_means[1], last]))

    def _factors(self) -> Sequence[float] | Tensor:
        """The weight of each task, in order.

        uncertainty: 1 / σ² in L / σ² + log σ, the form for classification, as exp(-s) with s = log σ² learned
        from 0. Kendall, Gal & Cipolla 2018, eq. 10.
        dwa: T softmax(r / temperature), where r is the ratio of a task's last two epoch means: a loss that
        falls slowly gets more weight; r is 1 until there are two. Liu, Johns & Davison 2019, eq. 7."""
        if self.rule == "uncertainty":
            return torch.exp(-self.log_variances)
        if self.rule == "dwa":
            before, last = self.epoch_means
            # NaN (no epoch yet) is not above 0 either
            ratios = torch.where(before > 0, last / before, 1.0)
            return len(self.tasks) * torch.softmax(ratios / self.temperature, 0)
        return self.fixed


def gradient_cosine(losses: dict[str, Tensor], parameters: Sequence[Tensor]) -> Tensor:
    """Cosine (0-dim) between two losses' gradients with respect to `parameters`; 0 if one gradient is 0.

    Below 0 the tasks work against each other. Keeps the graph and changes no `.grad`, thus backward can
    follow. Costs one backward pass per loss."""
    first, second = (
        torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
        for loss in losses.values()
    )

    def dot(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> Tensor:
        return torch.stack([(x.float() * y.float()).sum() for x, y in zip(a, b)]).sum()

    norms = dot(first, first).sqrt() * dot(second, second).sqrt()
    return torch.where(norms > 0, dot(first, second) / norms, 0.0)
