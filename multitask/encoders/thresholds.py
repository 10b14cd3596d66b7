"""Thresholds of a model's confidence: below them it says "I don't know". Fitted on dev, kept in its folder.

Needs neither torch nor pydantic, since an exported model runs without them."""

from __future__ import annotations

import json
import math
from argparse import ArgumentParser
from pathlib import Path
from typing import NamedTuple

from multitask.common.errors import InputError
from multitask.common.strict_json import RepeatedKey, loads

FILE = "thresholds.json"


class Step(NamedTuple):
    """What keeping only predictions from this threshold on does. `share_correct` counts one more wrong
    prediction than dev had, so that a few rows can't promise much."""

    threshold: float  # a prediction with this confidence is kept
    share_correct: float  # of the kept predictions on dev
    share_kept: float  # of all predictions on dev


class TaskThresholds(NamedTuple):
    """The steps of one task, from the lowest threshold, which keeps everything; both thresholds and shares of
    correct predictions rise."""

    predictions: int  # on dev: sentences, or found entities
    steps: tuple[Step, ...]

    def lowest_for(self, share_correct: float) -> Step | None:
        """The lowest threshold at which this share of the kept predictions is correct, or None."""
        return next((step for step in self.steps if step.share_correct >= share_correct), None)


class Thresholds(NamedTuple):
    """The content of thresholds.json. A task is None if dev had no prediction for it."""

    task_a: TaskThresholds | None = None
    task_b: TaskThresholds | None = None

    def to_json(self) -> bytes:
        """The file's content: one line for each task."""
        lines = (f'  "{task}": {json.dumps(steps)}' for task, steps in self._asdict().items())
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def read_thresholds(folder: str | Path) -> Thresholds | None:
    """The thresholds of a model folder; None if it has none. Raises InputError if they are damaged."""
    file = Path(folder) / FILE
    try:
        values = loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{file}: {(error.strerror or str(error)).lower()}") from None
    except (RepeatedKey, ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or set(values) != set(Thresholds._fields):
        raise InputError(f"{file}: is damaged")
    return Thresholds(**{task: _steps(value, file) for task, value in values.items()})


def add_share_options(parser: ArgumentParser) -> None:
    """Add --accuracy and --precision, the wanted shares for `Predictor.answer_only_if`."""
    share = "answer null instead of a class that is too unsure for this share of right classes, such as 0.95"
    parser.add_argument("--accuracy", type=float, metavar="SHARE", help=share)
    share = "leave out entities that are too unsure for this share of right entities"
    parser.add_argument("--precision", type=float, metavar="SHARE", help=share)


def lowest_threshold(
    thresholds: Thresholds | None, task: str, share_correct: float | None, option: str, model: str | Path
) -> Step | None:
    """The step for the share that an option asks for; None if it asks for none.

    Raises InputError, which names the option and the model, if dev gives no threshold for it."""
    if share_correct is None:
        return None
    if not 0 < share_correct < 1:
        raise InputError(f"{option} is {share_correct:g}; it must be above 0 and below 1, such as 0.95")
    fitted: TaskThresholds | None = thresholds and getattr(thresholds, task)
    what, rows = {"task_a": ("classes", "sentences"), "task_b": ("entities", "found entities")}[task]
    if not fitted:
        raise InputError(
            f"{option}: {model} has no thresholds for {what}; training sets them on a data.dev that is "
            f"annotated with {what}"
        )
    if step := fitted.lowest_for(share_correct):
        return step
    best = fitted.steps[-1].share_correct
    raise InputError(
        f"{option} {share_correct:g}: no threshold reaches it on the {fitted.predictions:,} {rows} of dev; "
        f"ask for at most {math.floor(best * 1000) / 1000:g}"
    )


def _steps(value: object, file: Path) -> TaskThresholds | None:
    if value is None:
        return None
    try:
        fitted = TaskThresholds(*value)  # type: ignore[misc]  # another type is an error below
        steps = [Step(*row) for row in fitted.steps]
        shares = [number for step in steps for number in step]
        if type(fitted.predictions) is int and steps and all(0 <= number <= 1 for number in shares):
            return fitted._replace(steps=tuple(steps))
    except TypeError:
        pass
    raise InputError(f"{file}: is damaged")
