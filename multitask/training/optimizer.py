"""The optimizer of a run: which parameters decay, which rate they learn at, how the rates move, and the steps
that it must not take."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_linear_schedule_with_warmup

from multitask.config.schema import TrainingSettings


def make_optimizer(
    model: nn.Module, settings: TrainingSettings, steps: int, extra_parameters: Iterable[nn.Parameter] = ()
) -> tuple[AdamW, LambdaLR]:
    """AdamW (Loshchilov & Hutter 2019) over what is trained; linear warm-up and decay over `steps`.

    `extra_parameters`, those of the loss, learn at the heads' rate and do not decay."""
    groups = parameter_groups(model, settings)
    if extra := list(extra_parameters):
        groups.append({"params": extra, "lr": settings.head_learning_rate, "weight_decay": 0.0})
    optimizer = AdamW(groups, fused=True)
    return optimizer, get_linear_schedule_with_warmup(optimizer, round(settings.warmup * steps), steps)


class OptimizerStep:
    """A step of the optimizer and of its schedule; what is not finite never reaches a weight.

    Nothing here waits for the device: the fused AdamW takes the factor that scales gradients down, and the
    flag that keeps it from a step, as tensors. `first_refused_step` is where they are read."""

    def __init__(self, optimizer: AdamW, schedule: LambdaLR, max_norm: float | None):
        self.optimizer, self.schedule, self.max_norm = optimizer, schedule, max_norm
        self.steps = 0
        self.refused: Tensor | None = None  # the first step that was not taken, 0 for none

    def __call__(self) -> None:
        """Use the gradients, and drop them. One that is infinite or NaN leaves all weights as they are."""
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"]]
        norm = get_total_norm([gradient for gradient in gradients if gradient is not None])
        wrong = ~(norm < math.inf)  # NaN is not below it either
        if self.max_norm is not None:
            self.optimizer.grad_scale = torch.clamp(norm / self.max_norm, min=1.0)
        self.optimizer.found_inf = wrong.float()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.steps += 1
        before = torch.zeros_like(norm) if self.refused is None else self.refused
        self.refused = torch.where((before == 0) & wrong, float(self.steps), before)

    def first_refused_step(self) -> int:
        """The number of the first step that was not taken, 0 for none. This waits for the device."""
        return 0 if self.refused is None else int(self.refused)

    def set_step(self, steps: int) -> None:
        """Set the rates, which are a function of the step, as they are after so many."""
        self.steps = self.schedule.last_epoch = steps
        for group, base, factor in zip(
            self.optimizer.param_groups, self.schedule.base_lrs, self.schedule.lr_lambdas
        ):
            group["lr"] = base * factor(steps)


def finite_or_nan(loss: Tensor) -> Tensor:
    """A loss, or NaN in the place of an infinite one: then its gradients are NaN, which no step is taken by.

    In several processes the gradients are what all of them see."""
    return loss * torch.where(torch.isfinite(loss.detach()), 1.0, math.nan)


def parameter_groups(model: nn.Module, settings: TrainingSettings) -> list[dict]:
    """Trainable parameters by rate and decay. The heads learn at their own rate: they start from nothing.

    Only weights of linear layers decay: shrinking a bias, a norm or an embedding regularises nothing."""
    decaying = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    rates = _encoder_rates(model, settings)
    groups: dict[tuple[float, float], list] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            rate = rates.get(id(parameter), settings.head_learning_rate)
            decay = settings.weight_decay if id(parameter) in decaying else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": ps, "lr": rate, "weight_decay": decay} for (rate, decay), ps in groups.items()]


def _encoder_rates(model: nn.Module, settings: TrainingSettings) -> dict[int, float]:
    """Ids of the encoder's parameters → their rates: a layer's is layer_decay times that of the one above.

    Lower layers hold what is more general, and want to move less (Howard & Ruder 2018, §3.2; Clark et al.
    2020, appendix). The embeddings count as the layer below the lowest."""
    parts = [*reversed(model.bert.encoder.layer), model.bert.embeddings]
    return {
        id(parameter): settings.learning_rate * settings.layer_decay**depth
        for depth, part in enumerate(parts)
        for parameter in part.parameters()
    }
