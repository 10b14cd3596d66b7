"""The optimizer: parameter groups, learning rates, their schedule, and skipping steps that are not finite."""

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_linear_schedule_with_warmup

from model import MultiTaskTransformer
from multitask.common.errors import InputError
from multitask.config.schema import Settings, TrainingSettings
from multitask.data.labels import TASKS
from multitask.plan.starting_model import trains_head


def make_optimizer(
    model: MultiTaskTransformer,
    settings: TrainingSettings,
    steps: int,
    extra_parameters: Iterable[nn.Parameter] = (),
) -> tuple[AdamW, LambdaLR]:
    """AdamW (Loshchilov & Hutter 2019) for all trainable parameters, with linear warm-up and decay over
    `steps`. `extra_parameters`, those of the loss, use the heads' learning rate and no weight decay."""
    groups = parameter_groups(model, settings)
    if extra := list(extra_parameters):
        groups.append({"params": extra, "lr": settings.head_learning_rate, "weight_decay": 0.0})
    optimizer = AdamW(groups, fused=True)
    return optimizer, get_linear_schedule_with_warmup(optimizer, round(settings.warmup * steps), steps)


class Diverged(InputError):
    """A step was skipped because its loss or a gradient was not finite.

    Attributes:
        rates: the learning rates that the run uses, by dotted key."""

    def __init__(self, step: int, rates: Mapping[str, float], precision: torch.dtype, rows: str):
        used = " or ".join(f"{key} ({rate:g})" for key, rate in rates.items())
        fp32 = ", or training.precision=fp32" if precision != torch.float32 else ""
        super().__init__(
            f"step {step}: the loss or a gradient is not finite; the step was skipped. A lower {used} may "
            f"help{fp32}. Rows of this step: {rows}"
        )
        self.rates = dict(rates)


def rates_used(model: MultiTaskTransformer, settings: Settings) -> dict[str, float]:
    """The learning rates that train a part of the model, by dotted key."""
    encoder = any(parameter.requires_grad for parameter in model.bert.parameters())
    heads = any(trains_head(settings, task) for task in TASKS)
    used = {"training.learning_rate": encoder, "training.head_learning_rate": heads}
    return {
        key: getattr(settings.training, key.removeprefix("training."))
        for key, is_used in used.items()
        if is_used
    }


class OptimizerStep:
    """A step of the optimizer and its schedule, skipped if a gradient is infinite or NaN.

    Nothing here waits for the device: the fused AdamW takes the factor that scales gradients down, and the
    flag that makes it skip a step, as tensors. `first_skipped_step` reads the result."""

    def __init__(self, optimizer: AdamW, schedule: LambdaLR, max_norm: float | None):
        self.optimizer, self.schedule, self.max_norm = optimizer, schedule, max_norm
        self.steps = 0
        device = optimizer.param_groups[0]["params"][0].device
        self.number = torch.zeros((), device=device)  # `steps` on the device
        self.skipped = torch.zeros((), device=device)  # number of the first skipped step, 0 for none
        self.keep_gradients = False  # whether gradients stay where they are, as zeros

    def __call__(self, apply: Callable[[], None] | None = None) -> None:
        """Apply the gradients and drop them. `apply` does it in place of the method `apply`."""
        (apply or self.apply)()
        self.schedule.step()
        self.steps += 1

    def apply(self) -> None:
        """Apply the gradients and drop them. If one is infinite or NaN, no weight changes.

        CUDA graphs record this method: it keeps to the tensors that it has."""
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"]]
        norm = get_total_norm([gradient for gradient in gradients if gradient is not None])
        not_finite = ~(norm < math.inf)  # also true for NaN
        if self.max_norm is not None:
            scale = torch.clamp(norm / self.max_norm, min=1.0)
            self.optimizer.grad_scale = scale  # type: ignore[attr-defined]  # read by the fused AdamW
        self.optimizer.found_inf = not_finite.float()  # type: ignore[attr-defined]  # likewise
        self.optimizer.step()
        self.drop_gradients()
        self.number += 1
        self.skipped += self.number * ((self.skipped == 0) & not_finite)

    def drop_gradients(self) -> None:
        """Begin the gradients of another step."""
        self.optimizer.zero_grad(set_to_none=not self.keep_gradients)

    def first_skipped_step(self) -> int:
        """The number of the first skipped step, 0 for none. Waits for the device."""
        return int(self.skipped)

    def set_step(self, steps: int) -> None:
        """Set the step number, and the learning rates as they are after that many steps."""
        self.steps = self.schedule.last_epoch = steps
        self.number.fill_(steps)
        for group, base, factor in zip(
            self.optimizer.param_groups, self.schedule.base_lrs, self.schedule.lr_lambdas
        ):
            group["lr"] = base * factor(steps)


def finite_or_nan(loss: Tensor) -> Tensor:
    """The loss, or NaN if it is infinite: then its gradients are NaN too, and the step is skipped.

    With several processes this makes all of them skip it, because they share the gradients."""
    # not torch.where, which copies numbers to the device and waits for it
    return loss * torch.ones_like(loss).masked_fill(~torch.isfinite(loss.detach()), math.nan)


def parameter_groups(model: MultiTaskTransformer, settings: TrainingSettings) -> list[dict]:
    """The trainable parameters, grouped by learning rate and weight decay. The heads start from random
    weights and have their own rate.

    Only the weights of linear layers decay: shrinking a bias, a norm or an embedding regularises nothing."""
    decaying = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    rates = _encoder_rates(model, settings)
    groups: dict[tuple[float, float], list] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            rate = rates.get(id(parameter), settings.head_learning_rate)
            decay = settings.weight_decay if id(parameter) in decaying else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": ps, "lr": rate, "weight_decay": decay} for (rate, decay), ps in groups.items()]


def _encoder_rates(model: MultiTaskTransformer, settings: TrainingSettings) -> dict[int, float]:
    """Ids of the encoder's parameters → learning rates: each layer has layer_decay times the rate of the
    layer above it.

    Lower layers hold more general features, which should change less (Howard & Ruder 2018, §3.2; Clark et
    al. 2020, appendix). The embeddings count as the layer below the lowest."""
    parts = [*reversed(model.bert.encoder.layer), model.bert.embeddings]
    return {
        id(parameter): settings.learning_rate * settings.layer_decay**depth
        for depth, part in enumerate(parts)
        for parameter in part.parameters()
    }
