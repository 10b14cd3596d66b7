"""The settings that a search tries, and their ranges."""

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from multitask.config.help_text import flatten_settings
from multitask.config.schema import Settings, trained_tasks
from token_heads import TOKEN_HEADS

SEARCHED = (
    *("training.learning_rate", "training.head_learning_rate", "training.num_epochs"),
    *("training.loss_weights.task_b", "model.dropout", "model.token_head"),
)


class Range(NamedTuple):
    """Numbers from `low` to `high`, both included; whole ones if both are."""

    low: float
    high: float
    log: bool = False  # small and large numbers are tried equally often


Choices = tuple[str, ...]


def search_space(
    settings: Settings, token_head: str | None, fixed: Collection[str] = ()
) -> dict[str, Range | Choices]:
    """Dotted key → what is tried, for the keys that matter in these settings and are not `fixed`.

    A range always holds the present value. `token_head` is the kind of a new head B; None: there is none."""
    values = flatten_settings(settings)
    space = {
        key: what
        for key, what in _candidates(settings, token_head)
        if not any(f"{key}.".startswith(f"{name}.") for name in fixed)  # a section has all of its keys
    }
    for key, what in space.items():
        if isinstance(what, Range):
            space[key] = what._replace(low=min(what.low, values[key]), high=max(what.high, values[key]))
    return space


def _candidates(settings: Settings, token_head: str | None) -> Iterator[tuple[str, Range | Choices]]:
    m, t, tasks = settings.model, settings.training, trained_tasks(settings)
    if not m.freeze_backbone:
        yield "training.learning_rate", Range(1e-5, 5e-4, log=True)
    yield "training.head_learning_rate", Range(1e-4, 1e-2, log=True)
    yield "training.num_epochs", Range(max(1, t.num_epochs // 2), 2 * t.num_epochs)
    if len(tasks) == 2 and t.loss_weighting == "fixed":
        yield "training.loss_weights.task_b", Range(1.0, 20.0, log=True)
    yield "model.dropout", Range(0.0, 0.3)
    if token_head and m.token_head == "auto":
        yield "model.token_head", TOKEN_HEADS


def start_values(settings: Settings, space: Collection[str], token_head: str | None) -> dict[str, Any]:
    """The present values of the keys of a space."""
    values = {**flatten_settings(settings), "model.token_head": token_head}
    return {key: values[key] for key in space}


def with_values(settings: Settings, values: dict[str, Any]) -> Settings:
    """Settings with other values for dotted keys."""
    dumped = settings.model_dump(mode="json")
    for key, value in values.items():
        *sections, name = key.split(".")
        part = dumped
        for section in sections:
            part = part[section]
        part[name] = value
    return Settings.model_validate(dumped)
