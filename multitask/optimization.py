"""The optimizer of a run: which parameters decay, which rate they learn at, and how the rates move."""

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_linear_schedule_with_warmup

from multitask.settings import TrainingSettings


def make_optimizer(model: nn.Module, settings: TrainingSettings, steps: int) -> tuple[AdamW, LambdaLR]:
    """AdamW (Loshchilov & Hutter 2019) over what is trained; linear warm-up and decay over `steps`."""
    optimizer = AdamW(parameter_groups(model, settings), fused=True)
    return optimizer, get_linear_schedule_with_warmup(optimizer, round(settings.warmup * steps), steps)


def parameter_groups(model: nn.Module, settings: TrainingSettings) -> list[dict]:
    """Trainable parameters by rate and decay. The heads learn at their own rate: they start from nothing.

    Only weights of linear layers decay: shrinking a bias, a norm or an embedding regularises nothing."""
    decaying = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    encoder = {id(parameter) for parameter in model.bert.parameters()}
    groups: dict[tuple[float, float], list] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            rate = settings.learning_rate if id(parameter) in encoder else settings.head_learning_rate
            decay = settings.weight_decay if id(parameter) in decaying else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": ps, "lr": rate, "weight_decay": decay} for (rate, decay), ps in groups.items()]
