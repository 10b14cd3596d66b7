"""How far a run is, and the state of a trainer that its checkpoints hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor

from multitask.common import distributed
from multitask.common.checksums import Buffer
from multitask.common.device import random_state, set_random_state
from multitask.data.labels import TASKS
from multitask.encoders.safetensors_writer import serialize

if TYPE_CHECKING:  # the trainer imports this module
    from multitask.training.trainer import Trainer

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of AdamW, for each parameter that had a gradient
_SUFFIX = ".safetensors"


@dataclass
class Progress:
    """The position of a run: between two steps, or after an epoch's last step, before its evaluation."""

    epoch: int = 1
    step: int = 0  # steps taken in this epoch
    seconds: float = 0.0  # that these steps took
    best: float | None = None  # dev score of the best model
    without_gain: int = 0  # epochs since the best model
    metrics: list[dict] = field(default_factory=list)  # of the finished epochs
    trained: bool = False  # no epoch is left

    @property
    def best_epoch(self) -> int:
        """The epoch of the best model, from 1."""
        return len(self.metrics) - self.without_gain

    @property
    def best_dev(self) -> dict | None:
        """The dev scores of the best model; None without dev."""
        return self.metrics[self.best_epoch - 1]["dev"]

    @property
    def still_rising(self) -> bool:
        """Whether the last of several epochs has the best dev score."""
        return self.best is not None and self.without_gain == 0 and len(self.metrics) > 1

    def end_epoch(self, metrics: dict, score: float | None, num_epochs: int, patience: int | None) -> bool:
        """Record a finished epoch → whether its model is the best so far. Without dev the last one counts as
        the best; of equal scores the first one does."""
        better = score is None or self.best is None or score > self.best
        if better:
            self.best = score
        self.without_gain = 0 if better else self.without_gain + 1
        self.metrics.append(metrics)
        self.trained = self.epoch == num_epochs or self.without_gain == patience
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        return better


def epoch_line(metrics: dict, epochs: int) -> str:
    """An epoch's metrics as one line of text."""
    losses = {name: metrics[f"loss_{name}"] for name in TASKS}
    tasks = [f"task {name[-1].upper()} {loss:.4f}" for name, loss in losses.items() if loss is not None]
    dev = [
        f"{name.replace('_', ' ')} {value:.4f}"
        for name, value in (metrics["dev"] or {}).items()
        if value is not None
    ]
    line = f"Epoch {metrics['epoch']}/{epochs}, Loss: {metrics['loss']:.4f} ({', '.join(tasks)})"
    return f"{line}; {metrics['seconds']:.1f} s" + (f"; dev: {', '.join(dev)}" if dev else "")


def state_dict(trainer: Trainer) -> dict[str, Any]:
    """Everything that training changes. All processes must call it; nothing is copied.

    Returns: "progress", "labelled", "micro_batch" and "best_weights" as JSON values; "tensors": {"model",
    "step", "exp_avg", "exp_avg_sq", "best" and "process-N" for each process → {name: Tensor}}."""
    own = {"generator": torch.get_rng_state(), "sums": trainer.sums, "cosines": trainer.cosines}
    if (generator := random_state(trainer.device)) is not None:
        own[f"{trainer.device.type}_generator"] = generator
    if scale := trainer.optimizer_step.loss_scale:
        own["loss_scale"] = scale.state
    processes = distributed.all_gather({name: tensor.cpu() for name, tensor in own.items()})
    state, optimized = trainer.optimizer_step.optimizer.state, _optimized(trainer)
    return {
        "progress": asdict(trainer.progress),
        "labelled": trainer.labelled.tolist(),
        "micro_batch": trainer.micro_batch,
        "best_weights": trainer.best_checksum,
        "tensors": {
            "model": learned_tensors(trainer),
            **{name: {k: state[p][name] for k, p in optimized.items() if p in state} for name in _MOMENTS},
            "best": trainer.best,
            **{f"process-{number}": tensors for number, tensors in enumerate(processes)},
        },
    }


@torch.no_grad()
def load_state_dict(trainer: Trainer, state: Mapping[str, Any]) -> None:
    """Continue from a `state_dict` of a trainer with the same settings, data and processes."""
    trainer.progress = Progress(**state["progress"])
    trainer.labelled = np.array(state["labelled"])
    trainer.micro_batch = state["micro_batch"]
    trainer.best_checksum = state["best_weights"]
    tensors = state["tensors"]
    _copy(tensors["model"], learned_tensors(trainer))
    trainer.best = {name: tensor.clone() for name, tensor in tensors["best"].items()}
    parameters = _optimized(trainer)
    for name in _MOMENTS:
        for key, value in tensors[name].items():
            # a copy has torch's own alignment; what was read may lie at any address
            moment = torch.empty_like(value, device=parameters[key].device).copy_(value)
            trainer.optimizer_step.optimizer.state[parameters[key]][name] = moment
    trainer.optimizer_step.set_step(trainer.steps)
    own = tensors[f"process-{distributed.rank()}"]
    trainer.sums.copy_(own["sums"])
    trainer.cosines.copy_(own["cosines"])
    torch.set_rng_state(own["generator"].clone())
    if (generator := own.get(f"{trainer.device.type}_generator")) is not None:
        set_random_state(generator.clone(), trainer.device)
    if (scale := trainer.optimizer_step.loss_scale) and "loss_scale" in own:
        scale.state.copy_(own["loss_scale"])


def tensor_files(state: Mapping[str, Any]) -> Iterator[tuple[str, Iterable[Buffer]]]:
    """The tensors of a trainer's state as files of a checkpoint, each made when it is its turn to be
    written."""
    for name, tensors in state["tensors"].items():
        yield f"{name}{_SUFFIX}", serialize(tensors)


def tensors_from_files(files: Mapping[str, bytes]) -> dict[str, dict[str, Tensor]]:
    """The reverse of `tensor_files`: "tensors" of a trainer's state."""
    return {name.removesuffix(_SUFFIX): load(content) for name, content in files.items()}


def learned_tensors(trainer: Trainer) -> dict[str, Tensor]:
    """The trained parameters and the heads, by name; the settings and the encoder's folder determine all
    other tensors."""
    parameters, encoder = trainer.model.named_parameters(), f"{trainer.model.base_model_prefix}."
    learned = {name: p for name, p in parameters if p.requires_grad or not name.startswith(encoder)}
    return {**learned, **trainer.weighting.state_dict(prefix="loss_weighting.", keep_vars=True)}


def copy_learned_tensors(trainer: Trainer) -> dict[str, Tensor]:
    """Copies of `learned_tensors`, on the CPU."""
    return {name: t.detach().to("cpu", copy=True) for name, t in learned_tensors(trainer).items()}


@contextmanager
def use_best_weights(trainer: Trainer) -> Iterator[None]:
    """In this block the trainer's model has the weights of its best epoch."""
    current = copy_learned_tensors(trainer)
    _copy(trainer.best, learned_tensors(trainer))
    try:
        yield
    finally:
        _copy(current, learned_tensors(trainer))


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])


def _optimized(trainer: Trainer) -> dict[str, Tensor]:
    """The optimizer's parameters by name."""
    names = {id(tensor): name for name, tensor in learned_tensors(trainer).items()}
    groups = trainer.optimizer_step.optimizer.param_groups
    return {names[id(p)]: p for group in groups for p in group["params"]}
