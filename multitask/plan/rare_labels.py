"""Warnings about classes and types that a run can hardly learn, or would unlearn."""

from collections import Counter
from collections.abc import Collection, Mapping
from types import MappingProxyType

from multitask.config.schema import Settings, trained_tasks
from multitask.data.notices import listed
from multitask.data.splits import Split
from multitask.plan.heads import Heads

FEW, SHARE = 5, 0.01  # a class with fewer rows, or with a smaller share of them, is rare


def rare_label_warnings(
    settings: Settings,
    heads: Heads,
    train: Split,
    taught: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> list[str]:
    """Warnings about the trained tasks' labels that train has seldom, and those it never has although the
    starting model knows them. `taught`: the labels, by task, that a teacher knows."""
    warnings = []
    labels, start = heads.labels, heads.start.known
    for task, names, known, counts, kind, rows in (
        ("task_a", labels.classes, start.classes, train.classes, "class", "rows"),
        ("task_b", labels.types, start.types, train.types, "type", "entities"),
    ):
        if task not in trained_tasks(settings):
            continue
        known = () if task in heads.new else known
        known = tuple(name for name in known if name not in taught.get(task, ()))
        total = sum(counts[name] for name in names)
        share = SHARE if task == "task_a" else 0.0
        few = [name for name in names if 0 < counts[name] < max(FEW, share * total)]
        if few:
            weighted = settings.training.class_weights is not None
            remedy = "add rows" if weighted else "add rows, or set training.class_weights=balanced"
            warnings.append(
                f"warning: train has few {rows} of the {kind} {_counted(few, counts)} (of {total:,}): a "
                f"model may never predict it; {remedy}"
            )
        if unseen := [name for name in known if not counts[name]]:
            warnings.append(
                f"warning: train has no {rows} of the {kind} {listed(unseen)}, which the starting model "
                f"knows: it may unlearn it; add {rows} of it"
            )
    return warnings


def _counted(names: list[str], counts: Counter) -> str:
    return listed([f"{name} {counts[name]:,}" for name in names])
