"""The teacher of a run: what it knows, and whether it fits the labels that a student learns."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from multitask.common.errors import InputError, list_problems
from multitask.config.schema import Settings, trained_tasks
from multitask.data.labels import LabelSpace
from multitask.data.notices import listed
from multitask.data.splits import Split
from multitask.distillation.row_targets import RowTargets, read_row_targets
from multitask.inference.predictor import Predictor

ROWS = "rows"  # the teacher whose probabilities stand in the rows of data.train
_WHAT = {"task_a": ("class", "classes"), "task_b": ("type", "types")}


@dataclass(frozen=True)
class Teacher:
    """Where soft targets come from: a model folder, or the rows of data.train. `labels` are what it knows."""

    name: str
    labels: LabelSpace
    folder: Path | None = None
    rows: RowTargets | None = None

    def known(self, task: str) -> tuple[str, ...]:
        """The classes or types that it knows; none if it has not learned the task."""
        return self.labels.classes if task == "task_a" else self.labels.types


def read_teacher(settings: Settings) -> Teacher | None:
    """The teacher that the settings ask for; None for no teacher, or one without a share in the loss.

    Raises InputError if a folder holds no undamaged model, and if the rows have no valid probabilities."""
    d = settings.distillation
    if d.teacher is None or d.share == 0:
        return None
    if d.teacher == ROWS:
        rows = read_row_targets(settings.data.train, settings.data.on_bad_row)
        if not rows.classes.numbers and not rows.tags.numbers:
            raise InputError(
                "distillation.teacher is rows, but no row of data.train has probabilities or "
                "tag_probabilities; task_5.py predict --soft-targets writes them"
            )
        return Teacher(ROWS, rows.labels, rows=rows)
    path = Path(d.teacher)
    if not path.is_dir():
        raise InputError(f"distillation.teacher: no folder {d.teacher}; rows: the rows of data.train")
    if path.resolve() != path.absolute():  # runs/latest may soon be the student's own run
        path = Path(os.path.relpath(path.resolve()))
    return Teacher(str(path), load_teacher(path, torch.device("cpu"), "fp32").labels, path)


def load_teacher(folder: Path, device: torch.device, precision: str) -> Predictor:
    """The model of a folder, on the device; an export on the CPU. Raises InputError as Predictor does."""
    on = torch.device("cpu") if (folder / "model.onnx").exists() else device
    return Predictor.from_pretrained(folder, on, "fp32" if precision == "tf32" else precision)


def taught_labels(teacher: Teacher | None, settings: Settings) -> dict[str, tuple[str, ...]]:
    """Trained task → the classes or types that the teacher knows."""
    return {task: teacher.known(task) for task in trained_tasks(settings)} if teacher else {}


def match_labels(teacher: Teacher, settings: Settings, labels: LabelSpace, train: Split) -> list[str]:
    """Warnings about labels that only the teacher or only train has.

    Raises InputError if the teacher can't teach a student of these labels: it knows no trained task, or not
    each where labels have no part in the loss; it lacks a label of train, or does not tell the first word of
    an entity from the others, as the student shall."""
    problems, warnings, name = [], [], f"distillation.teacher: {teacher.name}"
    tasks = trained_tasks(settings)
    unknown = [task for task in tasks if not teacher.known(task)]
    if len(unknown) == len(tasks):
        raise InputError(f"{name} has not learned {' and '.join(unknown)}")
    if unknown and settings.distillation.share == 1:
        raise InputError(
            f"{name} has not learned {unknown[0]}, and distillation.share is 1: nothing would teach it; set "
            "the share below 1, or training.task to the other task"
        )
    warnings += [f"warning: {name} has not learned {task}: its labels alone teach it" for task in unknown]
    present = {"task_a": train.class_names, "task_b": train.type_names}
    for task in (task for task in tasks if task not in unknown):
        known, (one, several) = teacher.known(task), _WHAT[task]
        if lacking := [label for label in present[task] if label not in known]:
            text = f"{name} does not know {several} of train: {listed(lacking)}"
            if teacher.rows is None:
                problems.append(f"{text}. Take a teacher that has learned them")
            else:
                warnings.append(f"warning: {text}. It gives them the probability 0")
        if more := [label for label in known if label not in present[task]]:
            warnings.append(
                f"{name} also knows {several} of which train has no {one}: {listed(more)}. The student "
                "learns them from it alone"
            )
    if (
        "task_b" in tasks
        and "task_b" not in unknown
        and (teacher.labels.scheme, labels.scheme) == ("IO", "BIO")
    ):
        problems.append(f"{name} has learned IO tags, and the student BIO tags: set data.tag_scheme to IO")
    if problems:
        raise InputError(list_problems(problems))
    return warnings
