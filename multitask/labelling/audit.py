"""Which labels of annotated files look wrong: classes by noise rate, words by the confident joint, the rules
that measured best (docs/labelling.md)."""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from multitask.common import distributed
from multitask.common.errors import InputError
from multitask.config.loading import load_settings
from multitask.config.schema import Settings, trained_tasks
from multitask.data.labels import UNLABELLED
from multitask.labelling.confident import (
    by_confident_joint,
    by_noise_rate,
    joint_distribution,
    label_quality,
)
from multitask.labelling.entity_issues import EntityIssue, entity_issues, word_types
from multitask.labelling.folds import (
    Build,
    OutOfFold,
    Train,
    embeddings_before_training,
    make_folds,
    predict_out_of_fold,
)
from multitask.labelling.near_duplicates import NearDuplicate, near_duplicates
from multitask.plan.duplicates import conflicting_rows
from multitask.speedups.frozen_features import FrozenFeatures
from multitask.training.preparation import Prepared, prepare

logger = logging.getLogger(__name__)

_SET_HERE = ("data.train", "data.dev", "data.test", "output_dir")


class ClassIssue(NamedTuple):
    """A row whose class looks wrong: class ids, and the quality of the given one, from 0 to 1."""

    row: int
    quality: float
    given: int
    suggested: int


class Audit(NamedTuple):
    """What looks wrong in annotated rows. Issues come in order of quality, the worst first."""

    prepared: Prepared  # the rows are its training data
    paths: list[str]
    predictions: OutOfFold
    classes: list[ClassIssue]
    entities: list[EntityIssue]
    wrong_classes: float | None  # estimated number; None if classes were not audited
    conflicts: dict[str, list[tuple[int, int]]]  # as from `conflicting_rows`
    near: list[NearDuplicate]  # between files
    unjudged: list[str]  # classes of a single text


def audit_settings(paths: Sequence[str], config: str | None, overrides: Sequence[str]) -> Settings:
    """The settings to train with: those of a file, or config.yml, on these files, without dev and test.

    Raises InputError for wrong settings, and for those that the audit sets itself."""
    for override in overrides:
        if override.partition("=")[0] in _SET_HERE:
            raise InputError(f"{override}: the audit sets it; give the files to audit as FILE")
    own = ["data.dev=null", "data.test=null", "model.num_classes_task_a=null", "model.num_labels_task_b=null"]
    own += ["training.select_by=auto", "training.early_stopping=null"]  # which dev would decide
    settings = load_settings(config or "config.yml", [*own, "output_dir=null", *overrides])
    return settings.model_copy(update={"data": settings.data.model_copy(update={"train": tuple(paths)})})


def audit(
    settings: Settings,
    folds: int,
    build: Build,
    train: Train,
    progress: Callable[[int], object] | None = None,
) -> Audit:
    """Find labels that look wrong in the files of data.train, by cross-validation.

    Args:
        settings: as from `audit_settings`.
        folds: number of models, each trained on the rows of all other folds.
        build, train: make and train a model.
        progress: called with 1 after each fold.

    Raises InputError as `prepare` does, for fewer annotated texts of a task than folds, and in one of several
    processes."""
    if folds < 2:
        raise InputError(f"--folds is {folds}; it must be 2 or more")
    device = distributed.init_processes(settings.device)
    settings = settings.model_copy(update={"device": str(device)})  # a missing GPU is reported once
    if distributed.world_size() > 1:
        raise InputError("audit runs in one process: start it once")
    prepared = prepare(settings)
    known = [task for task in trained_tasks(settings) if prepared.heads.start.has_head(task)]
    if known:
        logger.warning(
            f"warning: {prepared.backbone.name} has learned {' and '.join(known)}: if from these files, "
            "it repeats their errors; name another model.backbone"
        )
    corpus, split = prepared.corpora["train"], prepared.splits["train"]
    hashes, paths = split.arrays["row_hashes"], list(settings.data.train)
    has = {"task_a": corpus.row_classes != UNLABELLED, "task_b": corpus.row_tagged}
    for task in trained_tasks(settings):
        texts = len(np.unique(hashes[has[task]]))
        if texts < folds:
            hint = f"--folds {texts}" if texts > 1 else "annotate more"
            what = {"task_a": "a class", "task_b": "entities"}[task]
            reason = f"{texts} texts annotated with {what} are too few for {folds} folds"
            raise InputError(f"{', '.join(paths)}: {reason}: {hint}")
    fold_of_row = make_folds(hashes, corpus, folds, settings.training.seed)
    features: dict[str, FrozenFeatures] = {}
    found = predict_out_of_fold(settings, prepared, fold_of_row, build, train, features, progress)
    near: list[NearDuplicate] = []
    if len(paths) > 1:
        embeddings = embeddings_before_training(settings, prepared, build, features)
        near = near_duplicates(embeddings, corpus.file_of_row)
    classes, wrong, unjudged = _class_issues(prepared, found)
    entities = _entity_issues(prepared, found)
    return Audit(prepared, paths, found, classes, entities, wrong, conflicting_rows(split), near, unjudged)


def _class_issues(prepared: Prepared, found: OutOfFold) -> tuple[list[ClassIssue], float | None, list[str]]:
    """Rows with wrong classes, the estimated number of them, and the classes that can't be judged."""
    if found.class_probabilities is None:
        return [], None, []
    corpus, names = prepared.corpora["train"], prepared.labels.classes
    hashes = prepared.splits["train"].arrays["row_hashes"]
    rows = np.flatnonzero(corpus.row_classes != UNLABELLED)
    texts = np.unique(np.stack([corpus.row_classes[rows].astype(np.uint64), hashes[rows]]), axis=1)[0]
    few = np.bincount(texts.astype(np.int64), minlength=len(names)) < 2
    rows = rows[~few[corpus.row_classes[rows]]]  # no model has seen another text of such a class
    given, probabilities = corpus.row_classes[rows], found.class_probabilities[rows]
    wrong, quality = by_noise_rate(probabilities, given), label_quality(probabilities, given)
    joint = joint_distribution(probabilities, given)
    issues = [
        ClassIssue(int(rows[i]), float(quality[i]), int(given[i]), int(probabilities[i].argmax()))
        for i in np.flatnonzero(wrong)[np.argsort(quality[wrong], kind="stable")]
    ]
    unjudged = [names[i] for i in np.flatnonzero(few) if (corpus.row_classes == i).any()]
    return issues, float((joint.sum() - np.trace(joint)) * len(rows)), unjudged


def _entity_issues(prepared: Prepared, found: OutOfFold) -> list[EntityIssue]:
    if found.type_probabilities is None or found.tags is None:
        return []
    corpus = prepared.corpora["train"]
    words = np.flatnonzero(np.repeat(corpus.row_tagged, np.diff(corpus.word_rows)))
    given = word_types(corpus.spans, len(found.tags))[words]
    wrong, quality = np.zeros(len(found.tags), bool), np.ones(len(found.tags))
    wrong[words] = by_confident_joint(found.type_probabilities[words], given)
    quality[words] = label_quality(found.type_probabilities[words], given)
    issues = entity_issues(corpus, prepared.labels, found.tags, wrong, quality)
    return sorted(issues, key=lambda issue: (issue.quality, issue.row))
