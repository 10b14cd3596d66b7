"""The heads of a run: which labels they have, which of them are the starting model's, and which are new."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from multitask.common.errors import InputError, list_problems
from multitask.config.schema import ModelSettings, Settings, trained_tasks
from multitask.data.labels import TASKS, LabelSpace
from multitask.data.notices import listed
from multitask.data.splits import Split
from multitask.plan.starting_model import (
    StartingModel,
    check_kept_layers,
    check_kept_pooling,
    choose_pooling,
    choose_token_head,
    choose_window,
    trains_encoder,
    trains_head,
)

_SIZES = {"task_a": "num_classes_task_a", "task_b": "num_labels_task_b"}
_LABELS = {"task_a": ("classes", "a label"), "task_b": ("types", "an entity")}


@dataclass(frozen=True)
class Heads:
    """The heads of a run. `new` has the tasks whose head is drawn anew, `added` the classes or types that a
    head of the starting model gets besides its own; `sizes` are the output sizes of the heads."""

    start: StartingModel
    labels: LabelSpace
    new: frozenset[str]
    added: dict[str, tuple[str, ...]]
    sizes: tuple[int, int]
    token_head: str
    pooling: str
    max_length: int
    stride: int
    warnings: list[str] = field(default_factory=list)

    def keeps(self, task: str) -> bool:
        """Whether the head of a task is the starting model's."""
        return self.start.has_head(task) and task not in self.new


def choose_heads(
    settings: Settings,
    start: StartingModel,
    train: Split,
    taught: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> Heads:
    """The heads of a run on this training data; `taught`: the classes or types that a teacher knows, by task.

    Raises InputError if a head could not learn, if the settings ask for other sizes, and if they ask for
    something that a head of the starting model is not."""
    m, warnings = settings.model, []
    present = {
        task: sorted({*names, *taught.get(task, ())})
        for task, names in (("task_a", train.class_names), ("task_b", train.type_names))
    }
    _check_presence(settings, present)
    names = {task: _known(start.known, task) for task in TASKS}
    new, added = set(), {}
    for task in trained_tasks(settings):
        more = tuple(name for name in present[task] if name not in names[task])
        if reason := _why_new(settings, start.known, task, present[task]):
            warnings += [f"{task}: {reason}: a new head is trained"] if names[task] else []
            names[task] = tuple(present[task])
            new.add(task)
        elif more:
            warnings.append(
                f"{task}: the starting model knows {listed(names[task])}; train also has {listed(more)}: its "
                f"head keeps what it knows and learns these; model.new_heads={task} would start anew"
            )
            names[task] += more
            added[task] = more
    _check_frozen(settings, new, added)
    warnings += _moved(settings, start)
    kept_types = start.has_head("task_b") and "task_b" not in new
    scheme = start.known.scheme if kept_types or "task_b" not in trained_tasks(settings) else None
    labels = LabelSpace(names["task_a"], names["task_b"], scheme or settings.data.tag_scheme)
    check_kept_layers(settings, start, [task for task in TASKS if start.has_head(task) and task not in new])
    if start.has_head("task_a") and "task_a" not in new:
        check_kept_pooling(m, start)
    return Heads(
        start,
        labels,
        frozenset(new),
        added,
        _sizes(settings, labels, start, new, added),
        choose_token_head(settings, start.config, kept_types),
        choose_pooling(m, start.folder),
        *choose_window(m, start.folder),
        warnings,
    )


def _known(labels: LabelSpace, task: str) -> tuple[str, ...]:
    return labels.classes if task == "task_a" else labels.types


def _check_presence(settings: Settings, present: dict[str, list[str]]) -> None:
    """Raises InputError if train has no annotation of a trained task, or nothing to tell apart."""
    missing = [task for task in TASKS if not present[task]]
    if len(missing) == len(TASKS):
        raise InputError("no row of data.train has a label or an entity: there is nothing to learn")
    for task in set(missing) & {*trained_tasks(settings)}:
        (other,) = {*TASKS} - {task}
        raise InputError(f"no row of data.train has {_LABELS[task][1]}; training.task={other} trains without")
    if "task_a" in trained_tasks(settings) and len(present["task_a"]) == 1:
        hint = "add rows of another class"
        hint += ", or set training.task to task_b" if present["task_b"] else ""
        raise InputError(
            f"data.train has a single class, {present['task_a'][0]}: a model would learn to answer it for "
            f"every text; {hint}"
        )


def _why_new(settings: Settings, known: LabelSpace, task: str, present: Sequence[str]) -> str | None:
    """Why a trained task gets a new head; None if the starting model's is kept."""
    names, scheme = _known(known, task), settings.data.tag_scheme
    if not names:
        return "the starting model has no head"
    if task in settings.model.new_heads:
        return "model.new_heads asks for it"
    if task == "task_b" and known.scheme != scheme:
        return (
            f"the starting model learned {known.scheme} tags, and data.tag_scheme is {scheme} "
            f"(data.tag_scheme={known.scheme} keeps its head)"
        )
    if not {*present} & {*names}:
        return f"the starting model knows {listed(names)}; train has none of these, but {listed(present)}"
    return None


def _moved(settings: Settings, start: StartingModel) -> list[str]:
    """A warning for each head that stays while the encoder below it changes."""
    return [
        f"warning: {task} is not trained, but the encoder that its head reads is: it will predict something "
        "else; model.freeze_backbone=true keeps its predictions"
        for task in TASKS
        if trains_encoder(settings.model, start.config)
        and start.has_head(task)
        and task not in trained_tasks(settings)
    ]


def _check_frozen(settings: Settings, new: set[str], added: dict[str, tuple[str, ...]]) -> None:
    """Raises InputError if a head that has something to learn is frozen."""
    for task in trained_tasks(settings):
        key = f"model.freeze_{task}"
        if not getattr(settings.model, key.removeprefix("model.")):
            continue
        if task in new:
            raise InputError(f"{key} is true, but the head is new and would stay random: set it to false")
        if task in added:
            raise InputError(
                f"{key} is true, but train has {_LABELS[task][0]} that the starting model's head would have "
                f"to learn: {listed(added[task])}; set it to false"
            )


def _sizes(
    settings: Settings,
    labels: LabelSpace,
    start: StartingModel,
    new: set[str],
    added: dict[str, tuple[str, ...]],
) -> tuple[int, int]:
    """Sizes of both heads. Where labels are known their number decides, and the settings must agree."""
    problems, sizes = [], []
    for task, names, kind in (
        ("task_a", labels.classes, "classes"),
        ("task_b", labels.tags if labels.types else (), f"tags under {labels.scheme}"),
    ):
        size = getattr(settings.model, _SIZES[task])
        kept = start.has_head(task) and task not in new
        # config.yml has the default, which nobody has asked for, under a head that is not trained
        untouched = kept and not trains_head(settings, task)
        default = untouched and size == ModelSettings.model_fields[_SIZES[task]].default
        if names and size not in (None, len(names)) and not default:
            taught = settings.distillation.teacher is not None and settings.distillation.share > 0
            owner = (
                "the starting model has"
                if kept
                else "the data and the teacher have"
                if taught
                else "the data has"
            )
            hint = ""
            if task in added:
                owner = "the starting model and the data have"
                hint = f"; model.new_heads={task} learns those of the data alone"
            problems.append(
                f"model.{_SIZES[task]} is {size}, but {owner} {len(names)} {kind}: {listed(names)}. "
                f"Set model.{_SIZES[task]} to {len(names)}, or to null, to take it from there{hint}"
            )
        sizes.append(len(names) or size or 1)
    if problems:
        raise InputError(list_problems(problems))
    return sizes[0], sizes[1]
