"""Reads and checks what training needs (labels, the encoder, encoded splits), and configures the model."""

import logging
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer

from model import MultiTaskTransformer
from multitask.common.errors import InputError, require_packages
from multitask.config.schema import Settings, trained_tasks
from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import LabelSpace
from multitask.data.splits import Split, read_split, warn_unknown_labels
from multitask.data.tokenization import WordTokenizer
from multitask.distillation.soft_targets import SoftTargets
from multitask.distillation.teacher import match_labels, read_teacher, taught_labels
from multitask.encoders.lora import add_lora, shared_matrices
from multitask.encoders.pretrained import Backbone, find_backbone, load_tokenizer
from multitask.plan.calibration import annotated_tasks, kept_calibration
from multitask.plan.class_weights import ClassWeights, class_weights
from multitask.plan.duplicates import duplicate_warnings
from multitask.plan.heads import Heads, choose_heads
from multitask.plan.no_effect import no_effect_warnings
from multitask.plan.rare_labels import rare_label_warnings
from multitask.plan.selection import Selection, choose_selection
from multitask.plan.starting_model import check_kept_window, choose_window, read_starting_model
from multitask.speedups.modules import train_occurring_rows, use_fast_dropout
from multitask.training.trackers import require_tracker

logger = logging.getLogger(__name__)

_TAUGHT = {"task_a": "texts", "task_b": "words"}
_SKIP_HINT = "(data.on_bad_row=skip trains without these rows)"


@dataclass(frozen=True)
class Prepared:
    """What a run starts from. `warnings` are those about its settings, labels and data."""

    heads: Heads
    backbone: Backbone
    tokenizer: Tokenizer
    corpora: dict[str, EncodedCorpus]
    splits: dict[str, Split]
    class_weights: ClassWeights
    soft: SoftTargets | None
    selection: Selection
    warnings: list[str]

    @property
    def labels(self) -> LabelSpace:
        """The labels of the run's model."""
        return self.heads.labels

    @property
    def sizes(self) -> tuple[int, int]:
        """The output sizes of the heads."""
        return self.heads.sizes


def prepare(settings: Settings) -> Prepared:
    """Read and encode all splits, and log warnings about them.

    Raises InputError for bad rows, data from which a trained task can't be learned, settings that a head of
    the starting model does not fit, and missing packages."""
    if settings.model.lora.rank:
        require_packages(["peft"], "model.lora", "requirements-lora.txt")
    if settings.training.tracker:
        require_tracker(settings.training.tracker)
    m = settings.model
    backbone = find_backbone(m.backbone, m.offline_backbone, m.revision)
    start = read_starting_model(settings, backbone.folder)
    check_kept_window(settings, start)
    tokenizer = load_tokenizer(backbone.folder)
    splits = _read(settings, tokenizer, choose_window(settings.model, start.folder))
    teacher = read_teacher(settings)
    taught = taught_labels(teacher, settings)
    heads = choose_heads(settings, start, splits["train"], taught)
    labels, paths = heads.labels, {name: getattr(settings.data, name) for name in splits}
    corpora = {name: split.corpus(labels) for name, split in splits.items()}
    selection, unmeasured = choose_selection(settings, heads, corpora.get("dev"))
    _check_test(settings, corpora.get("test"))
    weights = class_weights(settings, labels, corpora["train"])
    matched = match_labels(teacher, settings, labels, splits["train"]) if teacher else []
    soft = SoftTargets(teacher, corpora["train"], labels, settings) if teacher else None
    on_cuda = settings.device not in ("cpu", "mps") and torch.cuda.is_available()
    warnings = [
        *no_effect_warnings(settings, start, on_cuda),
        *shared_matrices(start.config.family, settings.model.lora),
        *heads.warnings,
        *matched,
        *(soft.left_out() if soft else ()),
        *rare_label_warnings(settings, heads, splits["train"], taught),
        *(
            line
            for name in corpora
            if name != "train"
            for line in warn_unknown_labels(name, splits[name], labels)
        ),
        *unmeasured,
        *duplicate_warnings(splits, paths),
        *_merged_entities(settings, splits["train"]),
    ]
    for line in warnings:
        logger.warning(line)
    return Prepared(heads, backbone, tokenizer, corpora, splits, weights, soft, selection, warnings)


def describe(prepared: Prepared) -> str:
    """The summary that --check prints."""
    lines = [f"Encoder: {prepared.backbone.name}"]
    train = prepared.splits["train"].arrays["row_hashes"]
    repeats = []
    for name, corpus in prepared.corpora.items():
        split = prepared.splits[name]
        words, lengths = np.diff(corpus.word_rows), corpus.window_lengths
        several = int((np.diff(corpus.window_rows) > 1).sum())
        lines += [
            f"{name}: {len(corpus):,} rows used, {len(split.skipped):,} skipped; "
            f"words per row: median {np.median(words):.0f}, longest {words.max():,}; "
            f"tokens per window: median {np.median(lengths):.0f}, longest {lengths.max()}; "
            f"{several:,} rows in several windows",
            f"  classes: {_counted(split.classes)}",
            f"  entities: {_counted(split.types)}; {int((~corpus.row_tagged).sum()):,} rows not annotated",
        ]
        hashes = split.arrays["row_hashes"]
        repeats.append(f"{name}: {len(hashes) - len(np.unique(hashes)):,} rows repeat an earlier row")
        if name != "train":
            repeats.append(f"{name}: {int(np.isin(hashes, train).sum()):,} rows are also in train")
    if soft := prepared.soft:
        given = [
            f"{int(soft.has[task].sum()):,} {what}" for task, what in _TAUGHT.items() if task in soft.has
        ]
        lines.append(f"teacher: {soft.teacher.name}, for {' and '.join(given)} of train")
    return "\n".join([*lines, *repeats])


def model_config_fields(settings: Settings, prepared: Prepared) -> dict:
    """The fields of MultiTaskConfig that a run sets, as keyword arguments for from_pretrained."""
    m, heads, labels = settings.model, prepared.heads, prepared.labels
    family = heads.start.config.family
    tags = labels.tags if labels.types else [f"LABEL_{i}" for i in range(heads.sizes[1])]
    temperatures = kept_calibration(settings, heads).temperatures
    return {
        "num_classes_task_a": heads.sizes[0],
        "classes": list(labels.classes) or None,
        "id2label": dict(enumerate(tags)),
        "label2id": {tag: i for i, tag in enumerate(tags)},
        "tag_scheme": labels.scheme if labels.types else None,
        "pooling": heads.pooling,
        "token_head": heads.token_head,
        "max_length": heads.max_length,
        "stride": heads.stride,
        **dict.fromkeys(family.dropouts, m.dropout),
        family.attention_dropout: m.attention_dropout,
        "temperature_task_a": temperatures[0],
        "temperature_task_b": temperatures[1],
    }


def resolve_settings(settings: Settings, prepared: Prepared, device: str) -> Settings:
    """The settings with null values and fallbacks replaced: they reproduce the run."""
    heads = prepared.heads
    chosen = {
        "backbone": prepared.backbone.name,
        "revision": settings.model.revision if prepared.backbone.name == settings.model.backbone else None,
        "num_classes_task_a": heads.sizes[0],
        "num_labels_task_b": heads.sizes[1],
        **{name: getattr(heads, name) for name in ("pooling", "token_head", "max_length", "stride")},
    }
    update: dict = {"model": settings.model.model_copy(update=chosen), "device": device}
    if soft := prepared.soft:
        update["distillation"] = settings.distillation.model_copy(update={"teacher": soft.teacher.name})
    return settings.model_copy(update=update)


def _read(settings: Settings, tokenizer: Tokenizer, window: tuple[int, int]) -> dict[str, Split]:
    splits, problems, subwords = {}, [], WordTokenizer(tokenizer)
    on_bad_row, cache = settings.data.on_bad_row, settings.cache_dir
    for name in ("train", "dev", "test"):
        paths = getattr(settings.data, name)
        if not paths:
            continue
        try:
            split = read_split(paths, subwords, *window, on_bad_row, _SKIP_HINT, cache)
        except InputError as error:
            problems.append(str(error))
            continue
        splits[name] = split
        for line in [*split.skipped, *split.notices]:
            logger.warning(line)
        if not len(split):
            problems.append(f"data.{name}: no row of {', '.join(paths)} can be used")
    if problems:
        raise InputError("\n".join(problems))
    return splits


def _check_test(settings: Settings, test: EncodedCorpus | None) -> None:
    """Raises InputError if test has no annotation of a trained task."""
    if test is None:
        return
    annotated = annotated_tasks(test)
    if not any(annotated[task] for task in trained_tasks(settings)):
        raise InputError(
            f"data.test has no annotation of {settings.training.task}; data.test=null trains without it"
        )


def _merged_entities(settings: Settings, train: Split) -> list[str]:
    if settings.data.tag_scheme != "IO" or "task_b" not in trained_tasks(settings) or not train.joined:
        return []
    return [
        f"train: {train.joined:,} entities directly follow one of the same type: IO merges them, "
        "data.tag_scheme=BIO does not"
    ]


def _counted(counts: Counter) -> str:
    named = sorted((name, n) for name, n in counts.items() if name is not None)
    none = [f"none {counts[None]:,}"] if counts[None] else []
    return ", ".join([*(f"{name} {n:,}" for name, n in named), *none]) or "none"


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
