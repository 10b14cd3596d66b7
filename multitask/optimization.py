"""The optimizer of a run: which parameters decay, which rate they learn at, how the rates move, and the steps
that it must not take."""

from collections.abc import Iterable

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_linear_schedule_with_warmup

from multitask.settings import TrainingSettings


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
