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
    fused = next(model.parameters()).device.type != "mps"  # there it may not take a factor and a flag
    optimizer = AdamW(groups, fused=fused)
    return optimizer, get_linear_schedule_with_warmup(optimizer, round(settings.warmup * steps), steps)


class LossScale:
    """A factor of the loss that keeps the gradients of float16 away from 0 (Micikevicius et al. 2018, §3.2).

    It is halved where a gradient overflows, and doubled after GROW_AFTER steps without that. Everything is on
    the device, and nothing waits for it."""

    FIRST, LARGEST, GROW_AFTER = 2.0**16, 2.0**24, 2000

    def __init__(self, device: torch.device):
        self.state = torch.tensor([self.FIRST, 0.0, 0.0], device=device)
        self.factor, self.fitting, self.overflows = self.state.unbind()  # views, 0-dim

    def update(self, overflow: Tensor) -> None:
        """Adapt the factor after a step; `overflow` (0-dim bool): whether a gradient was infinite or NaN."""
        lost = overflow.float()
        self.overflows += lost
        self.fitting.add_(1).mul_(1 - lost)
        grow = (self.fitting == self.GROW_AFTER).float()
        self.factor.mul_((1 - lost / 2) * (1 + grow)).clamp_(1.0, self.LARGEST)
        self.fitting.mul_(1 - grow)

    @property
    def exhausted(self) -> Tensor:
        """Whether it can't be halved (0-dim bool): then an overflow is not due to the factor."""
        return self.factor <= 1


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
    encoder = any(parameter.requires_grad for parameter in model.base_model.parameters())
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
    flag that makes it skip a step, as tensors. `first_skipped_step` reads the result. Without the fused one,
    every step waits.

    With a `loss_scale`, the gradients are those of the loss times its factor, and steps are skipped while
    that is adapted; only a step at the factor 1 counts as skipped."""

    def __init__(
        self,
        optimizer: AdamW,
        schedule: LambdaLR,
        max_norm: float | None,
        loss_scale: LossScale | None = None,
    ):
        self.optimizer, self.schedule, self.max_norm = optimizer, schedule, max_norm
        self.loss_scale = loss_scale
        self.steps = 0
        device = optimizer.param_groups[0]["params"][0].device
        self.number = torch.zeros((), device=device)  # `steps` on the device
        self.skipped = torch.zeros((), device=device)  # number of the first skipped step, 0 for none
        self.keep_gradients = False  # whether gradients stay where they are, as zeros

    @property
    def counters(self) -> list[Tensor]:
        """What a step changes besides weights, moments and gradients."""
        return [self.number, self.skipped, *([self.loss_scale.state] if self.loss_scale else [])]

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss to call backward on."""
        return loss * self.loss_scale.factor if self.loss_scale else loss

    def __call__(self, apply: Callable[[], None] | None = None) -> None:
        """Apply the gradients and drop them. `apply` does it in place of the method `apply`."""
        (apply or self.apply)()
        self.schedule.step()
        self.steps += 1

    def apply(self) -> None:
        """Apply the gradients and drop them. If one is infinite or NaN, no weight changes.

        CUDA graphs record this method: it keeps to the tensors that it has."""
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"]]
        gradients = [gradient for gradient in gradients if gradient is not None]
        norm = get_total_norm(gradients)
        not_finite = failed = ~(norm < math.inf)  # also true for NaN
        divisor = self.loss_scale.factor.clone() if self.loss_scale else None
        if self.max_norm is not None:
            own_norm = norm if divisor is None else norm / divisor
            clipping = torch.clamp(own_norm / self.max_norm, min=1.0)
            divisor = clipping if divisor is None else divisor * clipping
        self._update_weights(gradients, divisor, not_finite)
        if self.loss_scale:
            failed = not_finite & self.loss_scale.exhausted
            self.loss_scale.update(not_finite)
        self.drop_gradients()
        self.number += 1
        self.skipped += self.number * ((self.skipped == 0) & failed)

    def _update_weights(self, gradients: list[Tensor], divisor: Tensor | None, not_finite: Tensor) -> None:
        """Apply the gradients, divided by `divisor` (0-dim), unless `not_finite` (0-dim bool)."""
        if self.optimizer.defaults["fused"]:
            if divisor is not None:
                self.optimizer.grad_scale = divisor  # type: ignore[attr-defined]  # read by the fused AdamW
            self.optimizer.found_inf = not_finite.float()  # type: ignore[attr-defined]  # likewise
            self.optimizer.step()
        elif not bool(not_finite):
            if divisor is not None:
                torch._foreach_div_(gradients, divisor)
            self.optimizer.step()

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
    return {
        id(parameter): settings.learning_rate * settings.layer_decay**depth
        for depth, modules in enumerate(reversed(model.parts()))
        for module in modules
        for parameter in module.parameters()
    }
