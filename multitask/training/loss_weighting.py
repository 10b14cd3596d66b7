"""How the losses of two tasks become the one that is minimised, and how far their gradients agree."""

import torch
from torch import Tensor, nn

from multitask.config.schema import TrainingSettings


class LossWeighting(nn.Module):
    """The factor of each task's loss: fixed, learned (uncertainty), or set after every epoch (dwa).

    What it learns is in `parameters()`, for the optimizer, and all that a resumed run needs in its state.
    A single task has nothing to be weighed against: only its fixed factor holds."""

    def __init__(self, settings: TrainingSettings, tasks: tuple[str, ...]):
        super().__init__()
        self.tasks, self.temperature = tasks, settings.dwa_temperature
        self.rule = settings.loss_weighting if len(tasks) > 1 else "fixed"
        self.fixed = [getattr(settings.loss_weights, task) for task in tasks]
        if self.rule == "uncertainty":
            self.log_variances = nn.Parameter(torch.zeros(len(tasks)))
        if self.rule == "dwa":  # mean losses of the epoch before the last one, and of the last one
            self.register_buffer("epoch_means", torch.full((2, len(tasks)), torch.nan))

    def forward(self, losses: dict[str, Tensor], share: float = 1.0) -> Tensor:
        """A micro-batch's parts of the tasks' losses → the scalar to call backward on.

        The parts add up to the losses of the step, the `share`s of its calls to 1: what does not come from
        the losses then counts once a step, in however many micro-batches and processes it is computed."""
        total = sum(factor * losses[task] for task, factor in zip(self.tasks, self._factors()))
        if self.rule == "uncertainty":
            total = total + share * self.log_variances.sum() / 2
        return total

    @torch.no_grad()
    def weights(self) -> dict[str, float]:
        """The factors as they stand, for the log."""
        return {task: float(factor) for task, factor in zip(self.tasks, self._factors())}

    @torch.no_grad()
    def end_epoch(self, means: dict[str, float]) -> None:
        """Take note of each task's mean loss over an epoch that is over."""
        if self.rule == "dwa":
            last = self.epoch_means.new_tensor([means[task] for task in self.tasks])
            self.epoch_means.copy_(torch.stack([self.epoch_means[1], last]))

    def _factors(self) -> list[float] | Tensor:
        """The tasks' factors, in order.

        uncertainty: 1 / σ² in L / σ² + log σ, the form for classification, as exp(-s) with s = log σ² learned
        from 0. Kendall, Gal & Cipolla 2018, eq. 10.
        dwa: T softmax(r / temperature), r the ratio of a task's last two epoch means, so that what falls
        slowly counts more; r is 1 until there are two. Liu, Johns & Davison 2019, eq. 7."""
        if self.rule == "uncertainty":
            return torch.exp(-self.log_variances)
        if self.rule == "dwa":
            before, last = self.epoch_means
            # a NaN, no epoch yet, is not above 0 either
            ratios = torch.where(before > 0, last / before, 1.0)
            return len(self.tasks) * torch.softmax(ratios / self.temperature, 0)
        return self.fixed


def gradient_cosine(losses: dict[str, Tensor], parameters: list[Tensor]) -> Tensor:
    """Cosine (0-dim) between the gradients that two losses have at `parameters`; 0 where one has none.

    Below 0 the tasks pull against each other. The graph is kept and no `.grad` is touched: backward may
    follow. It costs a backward pass for each loss."""
    first, second = (
        torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
        for loss in losses.values()
    )

    def dot(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> Tensor:
        return torch.stack([(x.float() * y.float()).sum() for x, y in zip(a, b)]).sum()

    norms = dot(first, first).sqrt() * dot(second, second).sqrt()
    return torch.where(norms > 0, dot(first, second) / norms, 0.0)
