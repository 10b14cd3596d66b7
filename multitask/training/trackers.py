"""Writes a run's metrics for TensorBoard while it trains (`training.tracker`)."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from multitask.common.atomic_files import hide

EVENTS = "tensorboard"


class Tracker:
    """TensorBoard event files in the folder of a run; only the first process has one."""

    def __init__(self, run: Path, settings: Mapping[str, Any], metrics: list[dict]):
        """Write these settings and the metrics of the finished epochs.

        Existing event files are replaced: those of a killed run may hold steps that the resumed run repeats,
        and miss others."""
        from accelerate import PartialState  # type: ignore[import-untyped]  # no types
        from accelerate.tracking import TensorBoardTracker  # type: ignore[import-untyped]  # no types

        if (run / EVENTS).exists():
            shutil.rmtree(hide(run / EVENTS))
        PartialState(cpu=settings["device"] == "cpu")  # accelerate's trackers need one
        self.tracker, self.step = TensorBoardTracker(EVENTS, run), 0
        self.tracker.start()
        plain = {k: v if isinstance(v, int | float | str) else json.dumps(v) for k, v in settings.items()}
        self.tracker.store_init_configuration(plain)
        for row in metrics:
            self.log(row)

    def log(self, metrics: dict) -> None:
        """Write a line of metrics.jsonl as scalars, at its step or else at the last one."""
        self.step = metrics.get("step", self.step)
        self.tracker.log(dict(_scalars(metrics)), step=self.step)

    def close(self) -> None:
        """Finish the event files."""
        self.tracker.finish()


def _scalars(values: dict, before: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _scalars(value, f"{before}{name}/")
        elif value is not None and name != "step":
            yield before + name, value
