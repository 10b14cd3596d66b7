"""Decides whether a trainer's steps run as CUDA graphs, and prepares them."""

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from multitask.common import distributed
from multitask.speedups.device_corpus import DeviceCorpus
from multitask.speedups.graph_cache import CaptureError
from multitask.speedups.graphed_step import GraphedStep
from multitask.speedups.host_corpus import HostCorpus

if TYPE_CHECKING:  # the trainer imports this module's package
    from multitask.training.trainer import Trainer

logger = logging.getLogger(__name__)

_SHARE = 0.5  # of the device's free memory that the corpus may take

Loss = Callable[["Trainer", dict[str, Tensor], tuple[Tensor, Tensor], Tensor], Tensor]


def use_graphs(trainer: "Trainer", loss: Loss) -> None:
    """Let the trainer's steps run as CUDA graphs if the settings allow it, or say why that is not possible.

    `loss` computes the scalar of a micro-batch. Call this when the frozen layers' output exists."""
    if trainer.device.type != "cuda" or trainer.settings.training.cuda_graphs is False:
        return
    if reason := obstacle(trainer):
        logger.info(f"training runs without CUDA graphs: {reason}")
        return
    free, _ = torch.cuda.mem_get_info(trainer.device)
    trainer.graphs = graphed_step(trainer, loss, _SHARE * free)


def drop_graphs(trainer: "Trainer", error: CaptureError | None = None) -> None:
    """Let steps run without CUDA graphs from now on, and free their memory. Warns of an error."""
    if error:
        logger.warning(f"training continues without CUDA graphs: {error}")
    if trainer.graphs:
        trainer.graphs.clear(for_good=True)
        trainer.graphs = None


def obstacle(trainer: "Trainer") -> str | None:
    """Why a trainer's steps can't be CUDA graphs; None if nothing is in the way."""
    t, family = trainer.settings.training, trainer.model.config.family
    if not family.replays:
        return f"the layers of {family.name} can't be recorded"
    if distributed.world_size() > 1:
        return "several processes train one model"
    if t.gradient_cosine or t.gradient_checkpointing:
        return f"training.{'gradient_cosine' if t.gradient_cosine else 'gradient_checkpointing'} is on"
    return None


def graphed_step(trainer: "Trainer", loss: Loss, room: float = math.inf) -> GraphedStep:
    """A trainer's step as graphs; on a CPU the same step without them. `room`: bytes of the device that the
    corpus may take; a larger one stays on the host."""
    features = trainer.features_for("train")
    soft = trainer.soft
    size = DeviceCorpus.size(trainer.corpus) + (features.values.nbytes if features else 0)
    size += soft.size if soft else 0
    corpus: DeviceCorpus | HostCorpus
    if size <= room:
        corpus = DeviceCorpus(trainer.corpus, trainer.tasks, trainer.device)
        if features:
            corpus.add_features(features.values, features.stored, features.offsets)
        if soft:
            corpus.add_soft_targets(soft.values, trainer.corpus.row_of_window)
    else:
        kind = "frozen layers' output" if features else "training data"
        logger.info(f"the {kind} takes {size / 1e9:.1f} GB and stays in the host's memory")
        corpus = HostCorpus(
            trainer.corpus, trainer.tasks, trainer.device, features, soft.batch if soft else None
        )
    return GraphedStep(
        corpus,
        trainer.corpus.window_lengths,
        trainer.model.config.num_positions,
        partial(loss, trainer),
        trainer.optimizer_step,
        trainer.recorded,
    )
