"""Reads and checks everything that training needs: labels, the encoder's folder, encoded splits."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from multitask.common.errors import InputError, list_problems, require_packages
from multitask.config.schema import Settings, trained_tasks
from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import LabelSpace, labels_from_config
from multitask.data.splits import Split, read_split, warn_unknown_labels
from multitask.data.tokenization import WordTokenizer
from multitask.encoders.pretrained import Backbone, find_backbone, load_tokenizer
from multitask.training.model_setup import choose_pooling, choose_token_head, encoder_config

logger = logging.getLogger(__name__)

_SKIP_HINT = "(data.on_bad_row=skip trains without these rows)"
_LISTED = 12  # labels that a message lists before it counts the rest


@dataclass(frozen=True)
class Prepared:
    """What a run starts from. `sizes` are the output sizes of the heads; `token_head` is the kind of head B;
    `new_heads` has the tasks with a new head."""

    labels: LabelSpace
    sizes: tuple[int, int]
    token_head: str
    new_heads: frozenset[str]
    backbone: Backbone
    tokenizer: Tokenizer
    corpora: dict[str, EncodedCorpus]
    splits: dict[str, Split]


def prepare(settings: Settings) -> Prepared:
    """Read and encode all splits, and log warnings about them.

    Raises InputError for bad rows, data without annotation of a trained task, heads whose size does not match
    the data, and missing packages."""
    if settings.model.lora.rank:
        require_packages(["peft"], "model.lora", "requirements-lora.txt")
    if settings.training.tracker:
        require_packages(["tensorboard"], "training.tracker", "requirements-tensorboard.txt")
    m = settings.model
    backbone = find_backbone(m.backbone, m.offline_backbone, m.revision)
    # a plain BertConfig keeps the fields of MultiTaskConfig, although it does not know them
    config = encoder_config(settings.model, backbone.folder)
    known = labels_from_config(config)
    tokenizer = load_tokenizer(backbone.folder)
    splits = _read(settings, tokenizer)
    labels, new_heads = _labels(settings, splits["train"], known)
    sizes = _sizes(settings, labels)
    kept, trained = bool(labels.types) and "task_b" not in new_heads, "task_b" in trained_tasks(settings)
    token_head = choose_token_head(settings.model, config, kept, trained)
    corpora = {name: split.corpus(labels) for name, split in splits.items()}
    for name, split in splits.items():
        for line in warn_unknown_labels(name, split, labels) if name != "train" else []:
            logger.warning(line)
    _check_annotation(settings, corpora)
    _warn_merged_entities(settings, splits["train"])
    return Prepared(labels, sizes, token_head, new_heads, backbone, tokenizer, corpora, splits)


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
        "pooling": choose_pooling(m, prepared.backbone.folder),
        "token_head": prepared.token_head,
        "max_length": m.max_length,
        "stride": m.stride,
        "hidden_dropout_prob": m.dropout,
        "attention_probs_dropout_prob": m.attention_dropout,
        "temperature_task_a": 1.0,  # a starting model's temperatures were fitted to its own heads
        "temperature_task_b": 1.0,
    }


def resolve_settings(settings: Settings, prepared: Prepared, device: str) -> Settings:
    """The settings with null values and fallbacks replaced: they reproduce the run."""
    sizes = dict(zip(("num_classes_task_a", "num_labels_task_b"), prepared.sizes))
    chosen = {
        "backbone": prepared.backbone.name,
        "revision": settings.model.revision if prepared.backbone.name == settings.model.backbone else None,
        "pooling": choose_pooling(settings.model, prepared.backbone.folder),
        "token_head": prepared.token_head,
        **sizes,
    }
    model = settings.model.model_copy(update=chosen)
    return settings.model_copy(update={"model": model, "device": device})


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
        for line in [*split.skipped, *split.notices]:
            logger.warning(line)
        if not len(split):
            problems.append(f"data.{name}: no row of {', '.join(paths)} can be used")
    if problems:
        raise InputError("\n".join(problems))
    return splits


def _labels(settings: Settings, train: Split, known: LabelSpace) -> tuple[LabelSpace, frozenset[str]]:
    """The label space of the run, and the tasks with a new head.

    A trained task uses the names in the data, unless the starting model knows them all: then its head and
    names stay. An untrained task keeps the names of the starting model."""
    trained = trained_tasks(settings)
    scheme = settings.data.tag_scheme
    present = {"task_a": sorted(train.class_names), "task_b": sorted(train.type_names)}
    missing = {"task_a": "a label; training.task=task_b", "task_b": "an entity; training.task=task_a"}
    for task in trained:
        if not present[task]:
            raise InputError(f"no row of data.train has {missing[task]} trains without")
    names, new = {"task_a": known.classes, "task_b": known.types}, set()
    other_tags = {"task_a": False, "task_b": known.scheme != scheme}
    for task in trained:
        if other_tags[task] or not names[task] or not set(present[task]) <= set(names[task]):
            if names[task]:
                knows, has = _listed(names[task]), _listed(present[task])
                logger.warning(
                    f"{task}: the starting model knows {knows}; train has {has}: a new head is trained"
                )
            names[task] = tuple(present[task])
            new.add(task)
    used_scheme = scheme if "task_b" in trained else known.scheme
    return LabelSpace(tuple(names["task_a"]), tuple(names["task_b"]), used_scheme), frozenset(new)


def _sizes(settings: Settings, labels: LabelSpace) -> tuple[int, int]:
    """Sizes of both heads. Where labels are known their number decides, and the settings must agree."""
    problems, sizes = [], []
    for key, names, kind in (
        ("num_classes_task_a", labels.classes, "classes"),
        ("num_labels_task_b", labels.tags if labels.types else (), f"tags under {labels.scheme}"),
    ):
        size = getattr(settings.model, key)
        if names and size is not None and size != len(names):
            problems.append(
                f"model.{key} is {size}, but the data has {len(names)} {kind}: {_listed(names)}. "
                f"Set model.{key} to {len(names)}, or to null, to take it from the data"
            )
        sizes.append(len(names) or size or 1)
    if problems:
        raise InputError(list_problems(problems))
    return sizes[0], sizes[1]


def _check_annotation(settings: Settings, corpora: dict[str, EncodedCorpus]) -> None:
    """Raises InputError if dev or test has no annotation of a trained task."""
    for split in ("dev", "test"):
        if split in corpora:
            has = {
                "task_a": (corpora[split].row_classes >= 0).any(),
                "task_b": corpora[split].row_tagged.any(),
            }
            if not any(has[task] for task in trained_tasks(settings)):
                raise InputError(
                    f"data.{split} has no annotation of {settings.training.task}; "
                    f"data.{split}=null trains without it"
                )


def _warn_merged_entities(settings: Settings, train: Split) -> None:
    if settings.data.tag_scheme == "IO" and (joined := train.joined):
        logger.warning(
            f"train: {joined:,} entities directly follow one of the same type: IO merges them, "
            "data.tag_scheme=BIO does not"
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _counted(counts: Counter) -> str:
    named = sorted((name, n) for name, n in counts.items() if name is not None)
    none = [f"none {counts[None]:,}"] if counts[None] else []
    return ", ".join([*(f"{name} {n:,}" for name, n in named), *none]) or "none"
