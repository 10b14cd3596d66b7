"""Chooses what a run makes of an encoder, and configures a model: frozen parts, LoRA, faster modules."""

from pathlib import Path

import numpy as np
from transformers import BertConfig

from model import MultiTaskTransformer
from multitask.common.errors import InputError, list_problems
from multitask.config.schema import ModelSettings, Settings, trained_tasks
from multitask.data.corpus import EncodedCorpus
from multitask.encoders.lora import add_lora
from multitask.encoders.pretrained import own_pooling
from multitask.encoders.validation import read_config
from multitask.speedups.modules import train_occurring_rows, use_fast_dropout


def configure_model(
    model: MultiTaskTransformer, corpus: EncodedCorpus, settings: Settings, attention: str
) -> None:
    """Freeze what the settings freeze, add LoRA adapters, and replace modules by faster ones."""
    m, t, tasks = settings.model, settings.training, trained_tasks(settings)
    model.freeze(
        backbone=m.freeze_backbone,
        task_a=m.freeze_task_a or "task_a" not in tasks,
        task_b=m.freeze_task_b or "task_b" not in tasks,
        layers=m.freeze_layers,
    )
    if m.lora.rank:
        add_lora(model, m.lora)
    if t.occurring_rows:
        train_occurring_rows(model, np.concatenate([np.unique(corpus.ids), corpus.special]))
    if t.fast_dropout and model.device.type == "cpu":
        use_fast_dropout(model)
    if t.gradient_checkpointing:
        model.recompute_activations()
    model.set_attn_implementation(attention)


def encoder_config(m: ModelSettings, folder: Path) -> BertConfig:
    """The configuration in a model folder.

    Raises InputError if the settings ask for more positions or layers than it has."""
    config = BertConfig.from_dict(read_config(folder))
    positions, layers = config.max_position_embeddings, config.num_hidden_layers
    problems = []
    if m.max_length > positions:
        problems.append(f"model.max_length is {m.max_length}, but the encoder has {positions} positions")
    if m.freeze_layers > layers:
        problems.append(f"model.freeze_layers is {m.freeze_layers}, but the encoder has {layers} layers")
    elif m.lora.rank and m.freeze_layers == layers:
        problems.append(
            f"model.freeze_layers is {layers}, all of the encoder: no layer is left for model.lora"
        )
    if problems:
        raise InputError(list_problems(problems))
    return config


def choose_pooling(m: ModelSettings, folder: Path) -> str:
    """The pooling that the settings ask for, or for auto that of the encoder in the folder."""
    return own_pooling(folder) if m.pooling == "auto" else m.pooling


def choose_token_head(m: ModelSettings, config: BertConfig, kept: bool, trained: bool = True) -> str:
    """The kind of the token head; `kept`: it is that of the starting model, which has this configuration.

    For auto, a head that is trained anew is the one that measures best (docs/results.md): under an encoder
    that trains, a convolution finds no more entities than a linear head. Raises InputError if the settings
    ask for another kind than that of a head that is kept."""
    if not kept:
        best = "convolution" if m.freeze_backbone and trained else "linear"
        return best if m.token_head == "auto" else m.token_head
    own = getattr(config, "token_head", "linear")
    if m.token_head not in ("auto", own):
        raise InputError(
            f"model.token_head is {m.token_head}, but the starting model's token head is {own}, and its "
            "weights are kept: set model.token_head to auto"
        )
    return own
