"""What a run leaves: its settings, a line of metrics an epoch, the best model, and checkpoints."""

import json
import logging
import os
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from multitask.common import distributed
from multitask.common.atomic_files import append, atomic_file, lock, rename
from multitask.common.checksums import Buffer, ChecksumError, update_with_checksums, verify_checksums
from multitask.common.errors import InputError
from multitask.common.signals import StoppedBySignal
from multitask.config.help_text import flatten_settings, render_config
from multitask.config.loading import load_settings
from multitask.config.schema import Settings
from multitask.data.labels import TASKS
from multitask.encoders.lora import merge_lora
from multitask.encoders.saving import config_file, save_model
from multitask.evaluation.metrics import Scores
from multitask.evaluation.report import RunFacts
from multitask.export.model_card import model_card
from multitask.training.checkpoint import Checkpoint, Checkpoints
from multitask.training.preparation import Prepared, resolve_settings
from multitask.training.progress import Progress, best_weights, capture, restore
from multitask.training.resume import CONFIG, METRICS, Origin, check_origin, check_settings, origin_of
from multitask.training.trackers import EVENTS, Tracker

logger = logging.getLogger(__name__)

RUNS = Path("runs")
CHECKPOINTS, REPORT = "checkpoints", "report.html"


class RunFolder:
    """config.yml, metrics.jsonl, model/, checkpoints/ and report.html of one run, which no other process
    writes to."""

    def __init__(self, path: Path, origin: Origin, settings: Settings, prepared: Prepared):
        """An existing folder, from which leftovers of a process that was killed go.

        Raises InputError where another process trains in it."""
        self.path, self.origin, self.settings, self.prepared = path, origin, settings, prepared
        self.checkpoints = Checkpoints(path / CHECKPOINTS)
        self.lock = lock(path, "another process trains in it")
        for leftover in _leftovers(path):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        self.kept: dict | None = None  # the progress in the last one that was written
        self.tracker: Tracker | None = None

    def close(self) -> None:
        """Let others train in it."""
        self.checkpoints.wait()
        os.close(self.lock)
        if self.tracker:
            self.tracker.close()

    def track(self, metrics: list[dict]) -> None:
        """Let the tracker that the settings name, if any, know these metrics, and those that are logged."""
        if self.settings.training.tracker:
            self.tracker = Tracker(self.path, flatten_settings(self.settings), metrics)

    @property
    def model(self) -> Path:
        return self.path / "model"

    def log(self, metrics: dict) -> None:
        """Append a line to metrics.jsonl. The tracker is told first: the test set's line ends a run."""
        if self.tracker:
            self.tracker.log(metrics)
        append(self.path / METRICS, (json.dumps(metrics) + "\n").encode())

    def save(self, model, dev: dict | None) -> str:
        """Replace model/ by this model, which has these scores on dev, and let runs/latest point here → the
        SHA-256 of its weights."""
        card = self._card(dev)
        sums = save_model(model, self.prepared.backbone.folder, self.model, card)
        if self.path.parent.resolve() == RUNS.resolve():
            link = RUNS / f".latest.{os.getpid()}"
            link.unlink(missing_ok=True)
            link.symlink_to(self.path.name)
            rename(link, RUNS / "latest")
        return sums["model.safetensors"]

    @property
    def report(self) -> Path:
        return self.path / REPORT

    def finish(self, model, dev: dict | None, test: Scores | None, fitted: bool, page: bytes) -> None:
        """Write the model's temperatures and its scores on test into model/, whose weights it has, and the
        run's page."""
        config = model.config
        temperatures = (config.temperature_task_a, config.temperature_task_b) if fitted else None
        card = self._card(dev, test, temperatures)
        update_with_checksums(self.model, {"config.json": config_file(model), "README.md": card.encode()})
        with atomic_file(self.report) as file:
            file.write(page)
        self.log({"test": test and test.headline()})

    def _card(self, *scores: Any) -> str:
        p = self.prepared
        return model_card(self.settings, p.backbone, p.labels, p.splits, *scores)

    def facts(self, progress: Progress) -> RunFacts:
        """What the report says of the run besides the answers of its model."""
        return RunFacts(
            self.path,
            self.path / CONFIG,
            self.settings,
            progress.metrics,
            progress.best_epoch,
            {name: (len(split), len(split.skipped)) for name, split in self.prepared.splits.items()},
            self.origin.sources,
            {"processes": self.origin.processes, **self.origin.machine},
        )

    def holds(self, weights: str) -> bool:
        """Whether model/ is whole, and its weights have this SHA-256."""
        try:
            return verify_checksums(self.model)["model.safetensors"] == weights
        except (ChecksumError, KeyError):
            return False

    def write_checkpoint(self, step: int, facts: dict, files: Iterable[tuple[str, Iterable[Buffer]]]) -> None:
        """Write a checkpoint of what `capture` gave, unless the last one is of the same place."""
        if facts["progress"] != self.kept:
            self.checkpoints.save(step, {**facts, "origin": asdict(self.origin)}, files)
            self.kept = facts["progress"]

    def go_on(self) -> Checkpoint | None:
        """Make ready to go on from the newest checkpoint that is as it was written, which is given back; None
        for the beginning. Both, and what is not used, is said.

        Raises InputError where all checkpoints are damaged, or the newest is of other data or settings."""
        checkpoint, skipped = self.checkpoints.newest()
        if skipped and checkpoint is None:
            raise InputError("\n".join([*skipped, f"{self.path}: no checkpoint is left to go on from"]))
        for line in skipped:
            logger.warning(f"{line}; not used")
        if checkpoint:
            check_origin(self.origin, checkpoint)
        metrics = checkpoint.facts["progress"]["metrics"] if checkpoint else []
        with atomic_file(self.path / METRICS) as file:
            file.write("".join(json.dumps(row) + "\n" for row in metrics).encode())
        if checkpoint is None:
            logger.warning(f"{self.path}: there is no checkpoint yet; starting from the beginning")
        return checkpoint


def open_run_folder(run, old: Path | None) -> RunFolder | None:
    """The folder of a run, in the first process: a new one, or an old one, from whose newest checkpoint the
    run then goes on, in all processes.

    Raises InputError where it can't: for other settings or data, for damage, for another run in it."""
    settings = resolve_settings(run.settings, run.prepared, str(run.device))
    origin = origin_of(settings, run.prepared, run.device)
    folder = checkpoint = None
    with distributed.main_process_first():
        if old:
            check_settings(settings, load_settings(old / CONFIG), old)
        if distributed.rank() == 0:
            parts = origin, settings, run.prepared
            folder = RunFolder(old, *parts) if old else _new_run(*parts)
        if old:
            checkpoint = folder.go_on() if folder else Checkpoints(old / CHECKPOINTS).newest()[0]
    if checkpoint:
        restore(run, checkpoint.facts, checkpoint.files)
        if folder and run.best_weights and not folder.holds(run.best_weights):
            with best_weights(run):
                folder.save(merge_lora(run.model), run.progress.best_dev)
        print(f"Resuming {old} after step {run.steps}, {run.progress.step} of epoch {run.progress.epoch}")
    if folder:
        folder.track(run.progress.metrics)
    return folder


def save_checkpoint(run, folder: RunFolder | None) -> None:
    """Write a checkpoint. All processes call it, and the first one writes."""
    run.check()
    facts, files = capture(run)
    if folder:
        folder.write_checkpoint(run.steps, facts, files)


@contextmanager
def resume_hint_on_failure(folder: RunFolder | None) -> Iterator[None]:
    """Around the training: at its end others may go on with it; where it is cut short, say how."""
    try:
        yield
    except (StoppedBySignal, OSError, InputError) as end:
        if folder is None:
            raise
        checkpoints = folder.checkpoints.good
        state = f"the newest checkpoint is {checkpoints[-1]}" if checkpoints else "there is no checkpoint yet"
        model = f", the best model so far {folder.model}" if folder.model.exists() else ""
        command = f"python task_4.py --resume {folder.path}"
        if isinstance(end, StoppedBySignal):
            name = signal.Signals(end.number).name
            raise StoppedBySignal(
                end.number, f"stopped by {name}; {state}{model}; to go on: {command}"
            ) from None
        logger.warning(f"{state}{model}; once the cause is gone: {command}")
        raise
    finally:
        if folder:
            folder.close()


def epoch_line(metrics: dict, epochs: int) -> str:
    """An epoch's metrics, as they are printed."""
    losses = {name: metrics[f"loss_{name}"] for name in TASKS}
    tasks = [f"task {name[-1].upper()} {loss:.4f}" for name, loss in losses.items() if loss is not None]
    dev = [
        f"{name.replace('_', ' ')} {value:.4f}"
        for name, value in (metrics["dev"] or {}).items()
        if value is not None
    ]
    line = f"Epoch {metrics['epoch']}/{epochs}, Loss: {metrics['loss']:.4f} ({', '.join(tasks)})"
    return f"{line}; {metrics['seconds']:.1f} s" + (f"; dev: {', '.join(dev)}" if dev else "")


def check_output_dir(output_dir: str | None) -> None:
    """Raises InputError where a run can't go, before any work is done for it."""
    if output_dir is None:
        return
    path = Path(output_dir)
    if path.exists() and not path.is_dir():
        raise InputError(f"output_dir: {path} is a file")
    if path.is_dir() and set(path.iterdir()) > set(_leftovers(path)):
        raise InputError(f"output_dir: {path} is not empty; a run gets a folder of its own")


def _new_run(origin: Origin, settings: Settings, prepared: Prepared) -> RunFolder:
    """Make the folder. Raises InputError if it is there and not empty: no run is overwritten."""
    path = _new_folder(settings.output_dir)
    folder = RunFolder(path, origin, settings, prepared)
    check_output_dir(str(path))  # another run may have taken it by now
    with atomic_file(path / CONFIG) as file:
        file.write(render_config(settings).encode())
    return folder


def _leftovers(path: Path) -> list[Path]:
    """What a process that was killed was writing in a run's folder."""
    names = (*(f".{name}.*" for name in (CONFIG, METRICS, "model", REPORT, EVENTS)), f"{CHECKPOINTS}/.step-*")
    return [found for name in names for found in path.glob(name) if not found.is_symlink()]


def _new_folder(output_dir: str | None) -> Path:
    check_output_dir(output_dir)
    if output_dir is not None:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        return Path(output_dir)
    name = time.strftime("%Y-%m-%d_%H-%M-%S")
    for attempt in range(1, 100):
        path = RUNS / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise InputError(f"{RUNS}: no name is free for a run of {name}")
