"""Observes through torch's hooks what a training run really does in its first step."""

import gc
from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook

from model import MultiTaskTransformer


class StopAfterFirstStep(BaseException):
    """Ends a run that was started only to be observed."""


class Observer:
    """Fills `facts` at the first optimizer step of this process, and then removes its hooks.

    model: the trained model; None: find it in memory. stop: raise StopAfterFirstStep afterwards."""

    def __init__(self, model: MultiTaskTransformer | None = None, stop: bool = False):
        self.model, self.stop = model, stop
        self.facts: dict[str, str] = {}
        self.forward = register_module_forward_pre_hook(self._on_forward)
        self.step = register_optimizer_step_pre_hook(self._on_step)

    def close(self) -> None:
        self.forward.remove()
        self.step.remove()

    def _on_forward(self, module: nn.Module, inputs: tuple) -> None:
        if isinstance(module, nn.Linear):
            self.facts["precision"] = precision(module.weight)
            self.forward.remove()

    def _on_step(self, optimizer: torch.optim.Optimizer, *_) -> None:
        self.close()
        model = self.model or trained_model(optimizer)
        self.facts |= model_facts(model) | optimizer_facts(optimizer, model)
        if self.stop:
            raise StopAfterFirstStep


def trained_model(optimizer: torch.optim.Optimizer) -> MultiTaskTransformer:
    """The model in memory whose parameters the optimizer updates."""
    updated = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    # not isinstance, which runs code of some objects
    models = (thing for thing in gc.get_objects() if issubclass(type(thing), MultiTaskTransformer))
    return next(
        model for model in models if any(id(parameter) in updated for parameter in model.parameters())
    )


def precision(weight: torch.Tensor) -> str:
    """The precision of a matrix multiplication with these weights now, such as "bf16 autocast"."""
    kind = weight.device.type
    names = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
    if torch.is_autocast_enabled(kind):
        return f"{names[torch.get_autocast_dtype(kind)]} autocast"
    if (
        kind == "cuda"
        and weight.dtype == torch.float32
        and torch.backends.cuda.matmul.fp32_precision == "tf32"
    ):
        return "tf32"
    return names.get(weight.dtype, str(weight.dtype))


def model_facts(model: MultiTaskTransformer) -> dict[str, str]:
    """The attention implementation, and the dropout rates in use."""
    attention, other, kinds = set(), set(), set()
    for name, module in model.bert.named_modules():
        if type(module).__name__.endswith("Dropout"):
            rates = attention if name.endswith("attention.self.dropout") else other
            rates.add(module.p if module.training else 0.0)
            kinds.add(type(module).__name__)
    heads = (model.sentence_classifier, model.classifier)
    return {
        "attention": model.config._attn_implementation,
        "attention dropout": listed(attention),
        "dropout in the encoder": listed(other),
        "dropout before the heads": listed(
            model.config.hidden_dropout_prob * head.training for head in heads
        ),
        "kind of dropout": " and ".join(sorted(kinds)),
    }


def optimizer_facts(optimizer: torch.optim.Optimizer, model: MultiTaskTransformer) -> dict[str, str]:
    """Peak learning rates of encoder and heads, weight decay, and the name of the optimizer."""
    encoder = {id(parameter) for parameter in model.bert.parameters()}
    rates: dict[bool, set[float]] = {True: set(), False: set()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            rates[id(parameter) in encoder].add(group.get("initial_lr", group["lr"]))
    groups = optimizer.param_groups
    fused = " fused" * all(group.get("fused") for group in groups)
    return {
        "rate of the encoder": listed(rates[True]),
        "rate of the heads": listed(rates[False]),
        "weight decay": listed(group["weight_decay"] for group in groups if group["params"]),
        "optimizer": getattr(optimizer, "optimizer", optimizer).__class__.__name__ + fused,
    }


def listed(values: Iterable[float]) -> str:
    """The distinct values in order; "none" without values."""
    return " and ".join(f"{value:g}" for value in sorted(set(values))) or "none"
