"""How far a run is, and what its checkpoints hold: all that the rest of it depends on."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor

from multitask.common import distributed
from multitask.common.checksums import Buffer
from multitask.encoders.safetensors_writer import serialize

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of AdamW, for each parameter that had a gradient


@dataclass
class Progress:
    """Where a run is: between two steps, or behind the last one of an epoch that is not yet scored."""

    epoch: int = 1
    step: int = 0  # steps of this epoch that were taken
    seconds: float = 0.0  # that they took
    best: float | None = None  # dev score of the model that is kept
    without_gain: int = 0  # epochs since it was found
    metrics: list[dict] = field(default_factory=list)  # of the epochs that are over
    trained: bool = False  # no epoch is left

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, of the model that is kept."""
        return len(self.metrics) - self.without_gain

    @property
    def best_dev(self) -> dict | None:
        """The dev scores of the model that is kept; None without dev."""
        return self.metrics[self.best_epoch - 1]["dev"]

    def end_epoch(self, metrics: dict, score: float | None, num_epochs: int, patience: int | None) -> bool:
        """An epoch is over. Whether its model is the one to keep: the first best, or the last without dev."""
        better = score is None or self.best is None or score > self.best
        if better:
            self.best = score
        self.without_gain = 0 if better else self.without_gain + 1
        self.metrics.append(metrics)
        self.trained = self.epoch == num_epochs or self.without_gain == patience
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        return better


def capture(run) -> tuple[dict, Iterator[tuple[str, Iterable[Buffer]]]]:
    """A run's state: facts for JSON, and files of tensors, each made when it is its turn to be written.

    All processes have to call it. Nothing of the run changes by it."""
    own = {"generator": torch.get_rng_state(), "sums": run.sums, "cosines": run.cosines}
    if run.device.type == "cuda":
        own["cuda_generator"] = torch.cuda.get_rng_state(run.device)
    parts = distributed.all_gather(b"".join(serialize(own)))
    facts = {
        "progress": asdict(run.progress),
        "labelled": run.labelled.tolist(),
        "micro_batch": run.micro_batch,
        "best_weights": run.best_weights,
    }
    return facts, _files(run, parts)


def _files(run, parts: list[bytes]) -> Iterator[tuple[str, Iterable[Buffer]]]:
    yield "model.safetensors", serialize(learned(run))
    state = run.update.optimizer.state
    for name in _MOMENTS:
        values = {key: state[p][name] for key, p in _optimized(run).items() if p in state}
        yield f"{name}.safetensors", serialize(values)
    yield "best.safetensors", serialize(run.best)
    for number, part in enumerate(parts):
        yield f"process-{number}.safetensors", [part]


@torch.no_grad()
def restore(run, facts: dict, files: dict[str, bytes]) -> None:
    """Set a run that was made from the same settings and data to a state that `capture` gave."""
    run.progress = Progress(**facts["progress"])
    run.labelled = np.array(facts["labelled"])
    run.micro_batch = facts["micro_batch"]
    run.best_weights = facts["best_weights"]
    _put(learned(run), load(files["model.safetensors"]))
    run.best = {name: tensor.clone() for name, tensor in load(files["best.safetensors"]).items()}
    parameters = _optimized(run)
    for name in _MOMENTS:
        for key, value in load(files[f"{name}.safetensors"]).items():
            # a copy, aligned as torch aligns what it makes; what was read may lie at any address
            moment = torch.empty_like(value, device=parameters[key].device).copy_(value)
            run.update.optimizer.state[parameters[key]][name] = moment
    run.update.set_step(run.steps)
    own = load(files[f"process-{distributed.rank()}.safetensors"])
    run.sums.copy_(own["sums"])
    run.cosines.copy_(own["cosines"])
    torch.set_rng_state(own["generator"].clone())
    if run.device.type == "cuda" and "cuda_generator" in own:
        torch.cuda.set_rng_state(own["cuda_generator"].clone(), run.device)


def learned(run) -> dict[str, Tensor]:
    """What training may have changed, and the heads, by name; all else is as the settings and the encoder's
    folder give it."""
    parameters = run.model.named_parameters()
    kept = {name: p for name, p in parameters if p.requires_grad or not name.startswith("bert.")}
    weighting = run.weighting.state_dict(prefix="loss_weighting.", keep_vars=True)
    return {**kept, **weighting}


@contextmanager
def best_weights(run) -> Iterator[None]:
    """A block in which a run's model is the one that it keeps."""
    now = {name: tensor.detach().clone() for name, tensor in learned(run).items()}
    _put(learned(run), run.best)
    try:
        yield
    finally:
        _put(learned(run), now)


@torch.no_grad()
def _put(into: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, tensor in into.items():
        tensor.copy_(values[name])


def _optimized(run) -> dict[str, Tensor]:
    """The optimizer's parameters by name."""
    names = {id(tensor): name for name, tensor in learned(run).items()}
    return {names[id(p)]: p for group in run.update.optimizer.param_groups for p in group["params"]}
