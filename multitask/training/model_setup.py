"""Configures a model for training: frozen parts, LoRA, faster modules."""

import numpy as np

from model import MultiTaskTransformer
from multitask.config.schema import Settings, trained_tasks
from multitask.data.corpus import EncodedCorpus
from multitask.encoders.lora import add_lora
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
