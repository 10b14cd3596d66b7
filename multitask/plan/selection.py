"""The dev score by which a run compares its epochs (`training.select_by`)."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from multitask.common.errors import InputError
from multitask.config.schema import SCORED_TASK, Settings, trained_tasks
from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import UNLABELLED, LabelSpace
from multitask.evaluation.metrics import Scores
from multitask.plan.calibration import annotated_tasks
from multitask.plan.heads import Heads
from multitask.plan.starting_model import trains_encoder, trains_head

_WHAT = {"task_a": "class", "task_b": "entity of a type"}


@dataclass(frozen=True)
class Selection:
    """How epochs are compared: higher is better, and of equal epochs the earlier one wins."""

    by: str  # as in the settings
    measured: tuple[str, ...]  # the trained tasks that dev measures
    loss_weights: dict[str, float] | None = None  # of the dev loss; None: it is not computed

    def score(self, scores: Scores | None) -> float | None:
        """The score of an epoch; None without dev.

        auto: the mean of accuracy and entity F1, without a task that dev does not measure. loss: the dev
        loss with its sign changed."""
        if scores is None:
            return None
        if self.by == "loss":
            return None if scores.loss is None else -scores.loss
        row = scores.headline()
        if self.by != "auto":
            return row[self.by]
        keys = {"task_a": "accuracy", "task_b": "entity_f1"}
        parts = [value for task in self.measured if (value := row[keys[task]]) is not None]
        return float(np.mean(parts)) if parts else None


def choose_selection(
    settings: Settings, heads: Heads, dev: EncodedCorpus | None
) -> tuple[Selection, list[str]]:
    """How a run compares its epochs, and warnings about trained tasks that dev does not measure.

    Raises InputError if dev measures nothing, or not what `training.select_by` names, and if early stopping
    would end a run while a task that nobody measures still improves."""
    t, tasks = settings.training, trained_tasks(settings)
    weights = {task: getattr(t.loss_weights, task) for task in tasks}
    if len(tasks) == 1 or t.loss_weighting != "fixed":
        weights = dict.fromkeys(tasks, 1.0)
    if dev is None:
        return Selection(t.select_by, ()), []
    annotated, measurable = annotated_tasks(dev), _measurable(dev, heads.labels)
    missing = {}
    for task in tasks:
        if not annotated[task]:
            missing[task] = f"data.dev has no annotation of {task}"
        elif not measurable[task]:
            missing[task] = f"data.dev has no {_WHAT[task]} that the model knows"
    if len(missing) == len(tasks):
        reason = f"data.dev has no annotation of {t.task}" if not any(annotated[k] for k in tasks) else ""
        raise InputError(f"{reason or ' and '.join(missing.values())}; data.dev=null trains without it")
    if t.early_stopping and missing:
        raise InputError(
            f"{' and '.join(missing.values())}: training.early_stopping would end the run while "
            f"{' and '.join(missing)} may still improve; set it to null, or annotate data.dev"
        )
    # what never changes says nothing about an epoch
    still = not trains_encoder(settings.model, heads.start.config)
    constant = {task for task in tasks if still and not trains_head(settings, task)}
    measured = tuple(task for task in tasks if task not in missing and task not in constant)
    _check_measured(t.select_by, missing, dev, [task for task in tasks if annotated[task]])
    warnings = [
        f"warning: {reason}: the best epoch is chosen without {task}, and its scores are not known"
        for task, reason in missing.items()
    ]
    return Selection(t.select_by, measured, weights if t.select_by == "loss" else None), warnings


def _measurable(dev: EncodedCorpus, labels: LabelSpace) -> dict[str, bool]:
    """Whether a model with these labels can have another score than 0 in each task."""
    known = (dev.row_classes >= 0) & (dev.row_classes < len(labels.classes))
    found = dev.span_exact & (dev.spans[2] < len(labels.types))
    return {"task_a": bool(known.any()), "task_b": bool(found.any())}


def _check_measured(
    select_by: str, missing: dict[str, str], dev: EncodedCorpus, tasks: Iterable[str]
) -> None:
    """Raises InputError if dev does not measure what `select_by` names; `tasks` are those it annotates."""
    if (task := SCORED_TASK.get(select_by, "")) in missing:
        raise InputError(f"training.select_by is {select_by}, but {missing[task]}")
    has = {"task_a": dev.row_classes != UNLABELLED, "task_b": dev.row_tagged}
    if select_by == "exact_match" and not np.logical_and.reduce([has[task] for task in tasks]).any():
        raise InputError(
            "training.select_by is exact_match, but no row of data.dev has both a class and entities"
        )
