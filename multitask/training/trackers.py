"""A run's metrics for TensorBoard, which shows them while it goes on: `training.tracker`."""

import importlib.util
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from multitask.common.atomic_files import hide
from multitask.common.errors import InputError
from multitask.config.schema import TrainingSettings

EVENTS = "tensorboard"


def check_tracker(settings: TrainingSettings) -> None:
    """Raises InputError where a tracker is wanted, but not installed."""
    if settings.tracker and importlib.util.find_spec("tensorboard") is None:
        raise InputError("training.tracker needs tensorboard: pip install -r requirements-tensorboard.txt")


class Tracker:
    """Event files in the folder of a run; the first process alone has one."""

    def __init__(self, run: Path, settings: Mapping[str, Any], metrics: list[dict]):
        """Begin with these settings and the metrics of the epochs that are over.

        What is there already is replaced: a run that was killed may have told of steps that the one that goes
        on takes again, and not of some that it does not."""
        from accelerate import PartialState
        from accelerate.tracking import TensorBoardTracker

        if (run / EVENTS).exists():
            shutil.rmtree(hide(run / EVENTS))
        PartialState(cpu=settings["device"] == "cpu")  # accelerate's trackers want to know of one
        self.tracker, self.step = TensorBoardTracker(EVENTS, run), 0
        self.tracker.start()
        self.tracker.store_init_configuration({key: _plain(value) for key, value in settings.items()})
        for row in metrics:
            self.log(row)

    def log(self, metrics: dict) -> None:
        """A line of metrics.jsonl as scalars, at the optimizer's steps; one without a step is of the last."""
        self.step = metrics.get("step", self.step)
        self.tracker.log(dict(_scalars(metrics)), step=self.step)

    def close(self) -> None:
        self.tracker.finish()


def _scalars(values: dict, before: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _scalars(value, f"{before}{name}/")
        elif value is not None and name != "step":
            yield before + name, value


def _plain(value: Any) -> int | float | str | bool:
    return value if isinstance(value, (int, float, str)) else json.dumps(value)
