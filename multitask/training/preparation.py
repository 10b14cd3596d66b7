"""Settings → what training needs: labels, the encoder's folder, encoded splits; every disagreement found
first."""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from transformers import BertConfig

from multitask.common.errors import InputError, list_problems
from multitask.config.schema import ModelSettings, Settings, trained_tasks
from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import LabelSpace, labels_from_config
from multitask.data.splits import Split, read_split, warn_unknown_labels
from multitask.data.tokenization import WordTokenizer
from multitask.encoders.lora import check_peft
from multitask.encoders.pretrained import Backbone, find_backbone, load_tokenizer
from multitask.encoders.validation import read_config
from multitask.training.trackers import check_tracker

logger = logging.getLogger(__name__)

_SKIP_HINT = "(data.on_bad_row=skip goes on without these rows)"
_NAMED = 12  # labels that a message names before it counts the rest


@dataclass(frozen=True)
class Prepared:
    """What a run starts from. `sizes` are the heads'; `new_heads` names the tasks with a new one."""

    labels: LabelSpace
    sizes: tuple[int, int]
    new_heads: frozenset[str]
    backbone: Backbone
    tokenizer: Tokenizer
    corpora: dict[str, EncodedCorpus]
    splits: dict[str, Split]


def prepare(settings: Settings) -> Prepared:
    """Read and encode all splits.

    Says on standard error what a person should know of. Raises InputError for bad rows, for data that lack
    what is to be trained, for heads whose size is not that of the data, and for a package that is missing."""
    check_peft(settings.model.lora)
    check_tracker(settings.training)
    backbone = find_backbone(settings.model.backbone, settings.model.offline_backbone)
    # a plain BertConfig keeps the fields of MultiTaskConfig that it does not know
    known = labels_from_config(encoder_config(settings.model, backbone.folder))
    tokenizer = load_tokenizer(backbone.folder)
    splits = _read(settings, tokenizer)
    labels, new_heads = _labels(settings, splits["train"], known)
    sizes = _sizes(settings, labels)
    corpora = {name: split.corpus(labels) for name, split in splits.items()}
    for name, split in splits.items():
        unknown = warn_unknown_labels(name, split, labels) if name != "train" else []
        for line in [*split.skipped, *split.notices, *unknown]:
            logger.warning(line)
    _check_annotation(settings, corpora)
    _say_joined(settings, splits["train"])
    return Prepared(labels, sizes, new_heads, backbone, tokenizer, corpora, splits)


def describe(prepared: Prepared) -> str:
    """What --check prints of data that are fit for training."""
    lines = [f"Encoder: {prepared.backbone.name}"]
    train = prepared.splits["train"].arrays["row_hashes"]
    repeats = []
    for name, corpus in prepared.corpora.items():
        split = prepared.splits[name]
        words, lengths = np.diff(corpus.word_rows), corpus.window_lengths
        several = int((np.diff(corpus.window_rows) > 1).sum())
        lines += [
            f"{name}: {len(corpus):,} rows used, {len(split.skipped):,} skipped; "
            f"words a row: median {np.median(words):.0f}, longest {words.max():,}; "
            f"tokens a window: median {np.median(lengths):.0f}, longest {lengths.max()}; "
            f"{several:,} rows in several windows",
            f"  classes: {_counted(split.classes)}",
            f"  entities: {_counted(split.types)}; {int((~corpus.row_tagged).sum()):,} rows not annotated",
        ]
        hashes = split.arrays["row_hashes"]
        repeats.append(f"{name}: {len(hashes) - len(np.unique(hashes)):,} rows are repeated in it")
        if name != "train":
            repeats.append(f"{name}: {int(np.isin(hashes, train).sum()):,} rows stand in train too")
    return "\n".join([*lines, *repeats])


def model_config_fields(settings: Settings, prepared: Prepared) -> dict:
    """The fields of MultiTaskConfig that a run sets, as keyword arguments for from_pretrained."""
    m, labels = settings.model, prepared.labels
    tags = labels.tags if labels.types else [f"LABEL_{i}" for i in range(prepared.sizes[1])]
    return {
        "num_classes_task_a": prepared.sizes[0],
        "classes": list(labels.classes) or None,
        "id2label": dict(enumerate(tags)),
        "label2id": {tag: i for i, tag in enumerate(tags)},
        "tag_scheme": labels.scheme if labels.types else None,
        "pooling": m.pooling,
        "max_length": m.max_length,
        "stride": m.stride,
        "hidden_dropout_prob": m.dropout,
        "attention_probs_dropout_prob": m.attention_dropout,
        "temperature_task_a": 1.0,  # those of a starting model were fitted to its own heads
        "temperature_task_b": 1.0,
    }


def resolve_settings(settings: Settings, prepared: Prepared, device: str) -> Settings:
    """The settings with what was found out: they make the same run again."""
    sizes = dict(zip(("num_classes_task_a", "num_labels_task_b"), prepared.sizes))
    model = settings.model.model_copy(update={"backbone": prepared.backbone.name, **sizes})
    return settings.model_copy(update={"model": model, "device": device})


def encoder_config(m: ModelSettings, folder: Path) -> BertConfig:
    """The configuration in a model folder. Raises InputError where the settings ask for more than it has."""
    config = BertConfig.from_dict(read_config(folder))
    positions, layers = config.max_position_embeddings, config.num_hidden_layers
    problems = []
    if m.max_length > positions:
        problems.append(f"model.max_length is {m.max_length}, but the encoder has {positions} positions")
    if m.freeze_layers > layers:
        problems.append(f"model.freeze_layers is {m.freeze_layers}, but the encoder has {layers} layers")
    elif m.lora.rank and m.freeze_layers == layers:
        problems.append(f"model.freeze_layers is {layers}, all that there are: none is left for model.lora")
    if problems:
        raise InputError(list_problems(problems))
    return config


def _read(settings: Settings, tokenizer: Tokenizer) -> dict[str, Split]:
    splits, problems, subwords = {}, [], WordTokenizer(tokenizer)
    m, on_bad_row, cache = settings.model, settings.data.on_bad_row, settings.cache_dir
    for name in ("train", "dev", "test"):
        paths = getattr(settings.data, name)
        if not paths:
            continue
        try:
            split = read_split(paths, subwords, m.max_length, m.stride, on_bad_row, _SKIP_HINT, cache)
        except InputError as error:
            problems.append(str(error))
            continue
        splits[name] = split
        if not len(split):
            problems.append(f"data.{name}: no row of {', '.join(paths)} can be used")
    if problems:
        raise InputError("\n".join(problems))
    return splits


def _labels(settings: Settings, train: Split, known: LabelSpace) -> tuple[LabelSpace, frozenset[str]]:
    """The label space of the run, and the tasks whose head is new.

    A task that is trained has the names of the data, unless the starting model's include them all: then its
    head goes on. A task that is not trained keeps what the starting model knows."""
    trained = trained_tasks(settings)
    scheme = settings.data.tag_scheme
    found = {
        "task_a": sorted(train.class_names),
        "task_b": sorted(train.type_names),
    }
    missing = {"task_a": "a label: training.task=task_b", "task_b": "an entity: training.task=task_a"}
    for task in trained:
        if not found[task]:
            raise InputError(f"no row of data.train has {missing[task]} trains without")
    names, new = {"task_a": known.classes, "task_b": known.types}, set()
    other_tags = {"task_a": False, "task_b": known.scheme != scheme}
    for task in trained:
        if other_tags[task] or not names[task] or not set(found[task]) <= set(names[task]):
            if names[task]:
                knows, has = _listed(names[task]), _listed(found[task])
                logger.warning(
                    f"{task}: the starting model knows {knows}; train has {has}: a new head is trained"
                )
            names[task] = tuple(found[task])
            new.add(task)
    scheme = scheme if "task_b" in trained else known.scheme
    return LabelSpace(tuple(names["task_a"]), tuple(names["task_b"]), scheme), frozenset(new)


def _sizes(settings: Settings, labels: LabelSpace) -> tuple[int, int]:
    """Sizes of both heads. Names decide where there are some, and the settings must agree."""
    problems, sizes = [], []
    for key, names, what in (
        ("num_classes_task_a", labels.classes, "classes"),
        ("num_labels_task_b", labels.tags if labels.types else (), f"tags under {labels.scheme}"),
    ):
        asked = getattr(settings.model, key)
        if names and asked is not None and asked != len(names):
            problems.append(
                f"model.{key} is {asked}, but the data has {len(names)} {what}: {_listed(names)}. "
                f"Set model.{key} to {len(names)}, or to null, which takes it from the data"
            )
        sizes.append(len(names) or asked or 1)
    if problems:
        raise InputError(list_problems(problems))
    return sizes[0], sizes[1]


def _check_annotation(settings: Settings, corpora: dict[str, EncodedCorpus]) -> None:
    """Each split that is scored needs something to score."""
    for split in ("dev", "test"):
        if split in corpora:
            has = {
                "task_a": (corpora[split].row_classes >= 0).any(),
                "task_b": corpora[split].row_tagged.any(),
            }
            if not any(has[task] for task in trained_tasks(settings)):
                raise InputError(
                    f"data.{split} has no annotation of {settings.training.task}; data.{split}=null goes on"
                )


def _say_joined(settings: Settings, train: Split) -> None:
    if settings.data.tag_scheme == "IO" and (joined := train.joined):
        logger.warning(
            f"train: {joined:,} entities touch one of their type: IO joins them, data.tag_scheme=BIO not"
        )


def _listed(names) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _counted(counts: Counter) -> str:
    named = sorted((name, n) for name, n in counts.items() if name is not None)
    none = [f"none {counts[None]:,}"] if counts[None] else []
    return ", ".join([*(f"{name} {n:,}" for name, n in named), *none]) or "none"
