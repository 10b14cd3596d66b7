"""Sends a run's metrics to TensorBoard, Weights & Biases or MLflow while it trains (`training.tracker`)."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from multitask.common.atomic_files import hide
from multitask.common.errors import InputError, one_line, require_packages

EVENTS = "tensorboard"  # a folder of the run, as is the one that wandb writes
_WANDB, _PROJECT, _TAG = "wandb", "multitask", "multitask.run"
_PRIVATE = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}


def require_tracker(name: str) -> None:
    """Raises InputError if the package of a tracker is not installed."""
    require_packages([name], "training.tracker", f"requirements-{name}.txt")


class Tracker:
    """The metrics of a run at a tracker; only the first process has one.

    A resumed run replaces what it had sent: a killed run may have sent steps that the resumed run repeats,
    and not others. TensorBoard and MLflow start anew with the metrics of the finished epochs. Weights &
    Biases gets them as the same run, whose steps it takes once.

    Args:
        name: "tensorboard", "wandb" or "mlflow".
        run: the folder of the run.
        settings: the run's settings, by their dotted names.
        metrics: those of the finished epochs.

    Raises InputError if the tracker can't start, such as a server that does not answer."""

    def __init__(self, name: str, run: Path, settings: Mapping[str, Any], metrics: list[dict]):
        from accelerate import PartialState  # type: ignore[import-untyped]  # no types

        os.environ.update({key: value for key, value in _PRIVATE.items() if key not in os.environ})
        PartialState(cpu=settings["device"] == "cpu")  # accelerate's trackers need one
        plain = {k: v if isinstance(v, int | float | str) else json.dumps(v) for k, v in settings.items()}
        self.step = 0
        try:
            self.tracker = _TRACKERS[name](run)
            self.tracker.start()
            self.tracker.store_init_configuration(plain)
        except Exception as error:
            raise InputError(f"training.tracker {name}: can't start: {one_line(error)}") from None
        for row in metrics:
            self.log(row)

    def log(self, metrics: dict) -> None:
        """Send a line of metrics.jsonl as scalars, at its step or else at the last one."""
        self.step = metrics.get("step", self.step)
        self.tracker.log(dict(_scalars(metrics)), step=self.step)

    def close(self) -> None:
        """Send what is left."""
        self.tracker.finish()


def _tensorboard(run: Path) -> Any:
    """TensorBoard's event files, in the folder of the run."""
    from accelerate.tracking import TensorBoardTracker  # type: ignore[import-untyped]  # no types

    _remove(run / EVENTS)
    return TensorBoardTracker(EVENTS, run)


def _wandb(run: Path) -> Any:
    """A run of Weights & Biases; its local files lie in the folder of the run."""
    from accelerate.tracking import WandBTracker

    _remove(run / _WANDB)
    names = {"id": _identity(run), "name": run.name, "dir": str(run), "resume": "allow"}
    return WandBTracker(
        _PROJECT, **names, settings={"console": "off"}
    )  # it would write its own copy of stdout


def _mlflow(run: Path) -> Any:
    """A run of MLflow, at MLFLOW_TRACKING_URI or else in mlflow.db beside the folder of the run."""
    import mlflow
    from accelerate.tracking import MLflowTracker

    for noisy in ("alembic", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if "MLFLOW_TRACKING_URI" not in os.environ:
        mlflow.set_tracking_uri(f"sqlite:///{run.resolve().parent / 'mlflow.db'}")
    experiment = mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT))
    mine, client = _identity(run), mlflow.MlflowClient()
    for old in client.search_runs([experiment.experiment_id], f"tags.`{_TAG}` = '{mine}'"):
        client.delete_run(old.info.run_id)
    return MLflowTracker(experiment.name, run_name=run.name, tags={_TAG: mine})


_TRACKERS: dict[str, Callable[[Path], Any]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}


def _identity(run: Path) -> str:
    """A name that a resumed run shares with its beginning, and with no other run: from its config.yml, which
    is written once."""
    config = run / "config.yml"
    content = f"{config.stat().st_mtime_ns} ".encode() + config.read_bytes()
    return hashlib.sha256(content).hexdigest()[:16]


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(hide(folder))


def _scalars(values: dict, before: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _scalars(value, f"{before}{name}/")
        elif value is not None and name != "step":
            yield before + name, value
