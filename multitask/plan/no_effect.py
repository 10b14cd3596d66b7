"""Warnings about settings that were changed and have no effect beside the others."""

from collections.abc import Iterator

from multitask.config.help_text import flatten_settings
from multitask.config.schema import DistillationSettings, Settings, trained_tasks
from multitask.config.yaml_reader import format_scalar
from multitask.plan.starting_model import StartingModel, trains_encoder, trains_head


def no_effect_warnings(settings: Settings, start: StartingModel, on_cuda: bool) -> list[str]:
    """One warning for each setting that differs from its default and changes nothing in this run.

    Args:
        start: the model that the run starts from.
        on_cuda: whether the run uses a GPU."""
    values, defaults = flatten_settings(settings), flatten_settings(Settings())
    return [
        f"warning: {key} is {format_scalar(values[key])}, and has no effect: {why}"
        for key, why in _rules(settings, start, on_cuda)
        if values[key] != defaults[key]
    ]


def _rules(settings: Settings, start: StartingModel, on_cuda: bool) -> Iterator[tuple[str, str]]:
    """Keys that have no effect in these settings, and why."""
    m, t, tasks, d = settings.model, settings.training, trained_tasks(settings), settings.distillation
    no_layer_frozen = not m.freeze_backbone and not m.freeze_layers and not m.lora.rank
    if not trains_encoder(m, start.config):
        frozen = "model.freeze_backbone is true"
        if not m.freeze_backbone:
            frozen = f"model.freeze_layers is {m.freeze_layers}, all of the encoder"
        yield "training.layer_decay", frozen
        yield "training.learning_rate", f"{frozen}; the heads learn at training.head_learning_rate"
        yield "model.attention_dropout", frozen
        yield "training.occurring_rows", f"{frozen}: word embeddings are not trained"
    if start.keeps_all_layers:
        yield "model.keep_layers", "the encoder has no other layers"
    asks_model = d.teacher not in (None, "rows") and d.share > 0  # whose probabilities take memory too
    if no_layer_frozen:
        yield "training.cache_features", "no layer is frozen"
        yield from [("training.feature_memory", "no layer is frozen")] if not asks_model else []
    elif not t.cache_features and not asks_model:
        yield "training.feature_memory", "training.cache_features is false"
    if not any(trains_head(settings, task) for task in tasks) and t.loss_weighting != "uncertainty":
        yield "training.head_learning_rate", "no head is trained"
    yield from _teacher_rules(d)
    if not any(map(start.has_head, m.new_heads)):
        yield "model.new_heads", "the starting model has no such head"
    if not m.lora.rank:
        for name in ("alpha", "dropout", "targets"):
            yield f"model.lora.{name}", "model.lora.rank is 0"
    for task in {"task_a", "task_b"} - {*tasks}:
        yield f"model.freeze_{task}", f"training.task is {t.task}"
    if len(tasks) < 2:
        for task in ("task_a", "task_b"):
            yield f"training.loss_weights.{task}", f"training.task is {t.task}, whose loss stands alone"
    if "task_b" not in tasks:
        kept = f", and the starting model's tags are {start.known.scheme}" if start.known.types else ""
        yield "data.tag_scheme", f"training.task is {t.task}{kept}"
    if t.loss_weighting != "dwa":
        yield "training.dwa_temperature", f"training.loss_weighting is {t.loss_weighting}"
    if not settings.data.dev:
        yield "training.select_by", "data.dev is null, and the last epoch's model is kept"
    if t.early_stopping and t.early_stopping >= t.num_epochs:
        yield "training.early_stopping", f"training.num_epochs is {t.num_epochs}"
    if on_cuda or not m.dropout:
        yield "training.fast_dropout", "the run uses a GPU" if on_cuda else "model.dropout is 0"
    if not on_cuda:
        yield "training.cuda_graphs", "the run uses a CPU"
        if t.precision == "tf32":
            yield "training.precision", "TF32 is CUDA's; the run computes in fp32"


def _teacher_rules(d: DistillationSettings) -> Iterator[tuple[str, str]]:
    """Those of them that are about the teacher."""
    if d.teacher is None:
        yield "distillation.temperature", "distillation.teacher is null"
        yield "distillation.share", "distillation.teacher is null"
    elif d.share == 0:
        yield "distillation.teacher", "distillation.share is 0"
        yield "distillation.temperature", "distillation.share is 0"
    elif d.share == 1:
        for key in ("training.class_weights", "training.label_smoothing"):
            yield key, "distillation.share is 1, and labels have no part in the loss"
