"""Predictions for annotated rows by models that have not seen their annotation: k-fold cross-validation."""

import contextlib
import io
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from model import MultiTaskTransformer
from multitask.common import distributed
from multitask.common.signals import StopSignals
from multitask.config.schema import Settings, trained_tasks
from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import UNLABELLED, LabelSpace
from multitask.inference.decoding import decode_corpus, softmax
from multitask.inference.runner import Runner, run_model
from multitask.inference.torch_runner import TorchRunner
from multitask.plan.class_weights import class_weights
from multitask.speedups.frozen_features import FrozenFeatures
from multitask.training.preparation import Prepared
from multitask.training.trainer import Trainer

Build = Callable[[Prepared, Settings], MultiTaskTransformer]
Train = Callable[[Trainer, None, StopSignals], None]


class OutOfFold(NamedTuple):
    """What models predict for N rows of W words that they were not trained on. A task's fields are None if it
    is not trained."""

    class_probabilities: np.ndarray | None  # (N, C)
    tags: np.ndarray | None  # (W,) tag ids
    type_probabilities: np.ndarray | None  # (W, 1 + types) of O, and of each type


def make_folds(hashes: np.ndarray, corpus: EncodedCorpus, count: int, seed: int) -> np.ndarray:
    """A fold (N,) from 0 to `count` − 1 for each row. Rows of the same words share a fold, or else a model
    would know their annotation. Annotated texts of each class, and those with annotated entities, are spread
    evenly over the folds.

    Args:
        hashes: (N,) equal for rows of the same words.
        corpus: annotated rows.
        count: of folds.
        seed: of the order within each class."""
    _, first, text_of_row = np.unique(hashes, return_index=True, return_inverse=True)
    texts = len(first)
    classes, tagged = np.full(texts, UNLABELLED), np.zeros(texts, bool)  # of any row of a text
    np.maximum.at(classes, text_of_row, corpus.row_classes)
    np.logical_or.at(tagged, text_of_row, corpus.row_tagged)
    order = np.random.default_rng(seed).permutation(texts)
    order = order[np.lexsort((classes[order], tagged[order]))]
    folds = np.empty(texts, np.int64)
    folds[order] = np.arange(texts) % count
    return folds[text_of_row]


def keep_annotation(corpus: EncodedCorpus, rows: np.ndarray) -> EncodedCorpus:
    """The corpus with the annotation of some rows (N,) bool alone: training passes over all others."""
    words = np.repeat(rows, np.diff(corpus.word_rows))
    spans = words[corpus.spans[0]] if corpus.spans.size else np.zeros(0, bool)
    return replace(
        corpus,
        row_classes=np.where(rows, corpus.row_classes, UNLABELLED).astype(np.int32),
        row_tagged=corpus.row_tagged & rows,
        word_tags=np.where(words, corpus.word_tags, UNLABELLED).astype(np.int32),
        spans=corpus.spans[:, spans],
        span_exact=corpus.span_exact[spans],
    )


def train_once(
    settings: Settings,
    prepared: Prepared,
    rows: np.ndarray,
    build: Build,
    train: Train,
    features: dict[str, FrozenFeatures],
) -> Trainer:
    """Train a new model on the annotation of some training rows (N,) bool alone → its trainer.

    Args:
        build: makes a model.
        train: trains it, without a folder.
        features: of the frozen layers; what is computed here is added, for models of the same encoder."""
    masked = keep_annotation(prepared.corpora["train"], rows)
    weights = class_weights(settings, prepared.labels, masked)
    own = replace(prepared, corpora={"train": masked}, class_weights=weights)
    trainer = Trainer(build(own, settings).to(distributed.init_processes(settings.device)), own, settings)
    trainer.features = features
    with contextlib.redirect_stdout(io.StringIO()), StopSignals() as stop:  # its epochs are of no interest
        train(trainer, None, stop)
    return trainer


def predict_out_of_fold(
    settings: Settings,
    prepared: Prepared,
    folds: np.ndarray,
    build: Build,
    train: Train,
    features: dict[str, FrozenFeatures],
    progress: Callable[[int], object] | None = None,
) -> OutOfFold:
    """Train a model for each fold (N,) on the rows of the other folds, and predict the rows of the fold.

    All models begin with the same weights, and share the output of frozen layers.

    Args:
        build, train, features: as in `train_once`.
        progress: called with 1 after each fold."""
    corpus, labels = prepared.corpora["train"], prepared.labels
    rows, words = len(corpus), len(corpus.word_tags)
    tasks = trained_tasks(settings)
    classes = np.zeros((rows, len(labels.classes)), np.float32) if "task_a" in tasks else None
    tags = np.zeros(words, np.int32) if "task_b" in tasks else None
    types = np.zeros((words, 1 + len(labels.types)), np.float32) if "task_b" in tasks else None
    for fold in range(int(folds.max()) + 1):
        trainer = train_once(settings, prepared, folds != fold, build, train, features)
        runner = TorchRunner(trainer.model, trainer.features_for("train"), trainer.precision)
        with trainer.evaluation_attention():
            for out in decode_corpus(runner, corpus, labels, tasks):
                own = folds[out.first : out.last] == fold
                own_words = np.repeat(own, np.diff(out.offsets))
                first, last = corpus.word_rows[[out.first, out.last]]
                if classes is not None and out.sentence_logits is not None:
                    classes[out.first : out.last][own] = softmax(out.sentence_logits[own])
                if tags is not None and types is not None:
                    assert out.word_logits is not None and out.tags is not None  # the task is trained
                    tags[first:last][own_words] = out.tags[own_words]
                    types[first:last][own_words] = _of_types(softmax(out.word_logits[own_words]), labels)
        if progress:
            progress(1)
    return OutOfFold(classes, tags, types)


def embeddings_before_training(
    settings: Settings, prepared: Prepared, build: Build, features: dict[str, FrozenFeatures]
) -> np.ndarray:
    """The embedding (N, D) of each training row by the encoder that training starts from.

    Args:
        build, features: as in `train_once`; features that are there are used."""
    model = build(prepared, settings).to(distributed.init_processes(settings.device))
    frozen = features.get("train")
    runner: Runner = TorchRunner(model, frozen)
    runner = runner if frozen else runner.without_heads()
    corpus = prepared.corpora["train"]
    return np.concatenate([out.embeddings for out in run_model(runner, corpus)])


def _of_types(probabilities: np.ndarray, labels: LabelSpace) -> np.ndarray:
    """Probabilities of tags (n, K) → those of O and of each type (n, 1 + types)."""
    if labels.scheme == "IO":
        return probabilities
    return np.concatenate([probabilities[:, :1], probabilities[:, 1::2] + probabilities[:, 2::2]], 1)
