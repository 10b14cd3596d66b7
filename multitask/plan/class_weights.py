"""The weight of each class and each tag in the losses (`training.class_weights`)."""

from collections.abc import Mapping

import numpy as np

from multitask.common.errors import InputError, list_problems
from multitask.common.spelling import closest_name
from multitask.config.schema import Settings, trained_tasks
from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import LabelSpace

ClassWeights = dict[str, np.ndarray]
"""Trained task → the weight of each of its classes (C,), or tags (K,), by id, float32."""


def class_weights(settings: Settings, labels: LabelSpace, train: EncodedCorpus) -> ClassWeights:
    """The weights that the settings ask for; empty where they ask for none.

    balanced: n / (K n_k) for the n_k of n items that have label k of K that occur (King & Zeng 2001): each
    label then has the same share of the loss. Labels that do not occur have the weight 1.

    Raises InputError for a name that is none of the trained tasks' classes and types."""
    wanted = settings.training.class_weights
    if wanted is None:
        return {}
    names, items = {}, {"task_a": train.row_classes, "task_b": train.word_tags}
    if "task_a" in trained_tasks(settings):
        names["task_a"] = list(labels.classes)
    if "task_b" in trained_tasks(settings):
        names["task_b"] = [tag[2:] if labels.scheme == "BIO" and tag != "O" else tag for tag in labels.tags]
    if wanted == "balanced":
        return {task: _balanced(items[task], len(own)) for task, own in names.items()}
    assert not isinstance(wanted, str)
    _check_names(wanted, {name for own in names.values() for name in own})
    return {task: np.array([wanted.get(name, 1) for name in own], np.float32) for task, own in names.items()}


def _balanced(ids: np.ndarray, size: int) -> np.ndarray:
    counts = np.bincount(ids[ids >= 0], minlength=size)
    weights = counts.sum() / (max(1, np.count_nonzero(counts)) * np.maximum(counts, 1))
    return np.where(counts > 0, weights, 1).astype(np.float32)


def _check_names(wanted: Mapping[str, float], known: set[str]) -> None:
    problems = []
    for name in wanted.keys() - known:
        closest = closest_name(name, sorted(known))
        hint = f"; did you mean {closest}?" if closest else ""
        problems.append(f"training.class_weights: no class or type that is trained is named {name!r}{hint}")
    if problems:
        raise InputError(list_problems(sorted(problems)))
