"""The folder of a run: its settings, metrics, best model, checkpoints and report."""

import json
import logging
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from model import MultiTaskTransformer
from multitask.common import distributed
from multitask.common.atomic_files import append, atomic_file, lock, rename
from multitask.common.checksums import ChecksumError, update_with_checksums, verify_checksums
from multitask.common.errors import InputError
from multitask.common.signals import StoppedBySignal
from multitask.config.help_text import flatten_settings
from multitask.config.schema import Settings
from multitask.encoders.lora import merge_lora
from multitask.encoders.saving import config_file, save_model
from multitask.encoders.thresholds import FILE as THRESHOLDS
from multitask.evaluation.metrics import Scores
from multitask.evaluation.report import RunFacts
from multitask.export.model_card import model_card
from multitask.plan.calibration import Calibration, kept_calibration
from multitask.training import existing_runs, resume
from multitask.training.checkpoint import Checkpoint, Checkpoints
from multitask.training.existing_runs import CHECKPOINTS, CONFIG, LATEST, METRICS, RUNS
from multitask.training.optimizer import Diverged
from multitask.training.preparation import Prepared, resolve_settings
from multitask.training.progress import Progress, tensor_files, tensors_from_files, use_best_weights
from multitask.training.trackers import Tracker
from multitask.training.trainer import Trainer

logger = logging.getLogger(__name__)


class RunFolder:
    """config.yml, metrics.jsonl, model/, checkpoints/ and report.html of one run. While it is open, no other
    process can open it."""

    def __init__(self, path: Path, origin: resume.Origin, settings: Settings, prepared: Prepared):
        """Open an existing folder and remove what a killed process was writing.

        Raises InputError if another process is training in it."""
        self.path, self.origin, self.settings, self.prepared = path, origin, settings, prepared
        self.model, self.report = path / existing_runs.MODEL, path / existing_runs.REPORT
        self.checkpoints = Checkpoints(path / CHECKPOINTS)
        self.lock = lock(path, "another process is training in it")
        for leftover in existing_runs.leftovers(path):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        self.is_in_runs = path.parent.resolve() == RUNS.resolve()  # and a link can be made there
        self.saved_progress: dict | None = None  # of the last checkpoint written
        self.tracker: Tracker | None = None

    def close(self) -> None:
        """Close the tracker, and unlock the folder."""
        self.checkpoints.wait()
        self.lock.close()
        if self.tracker:
            self.tracker.close()

    def log(self, metrics: dict) -> None:
        """Append a line to metrics.jsonl. The tracker comes first: the last line marks a finished run."""
        if self.tracker:
            self.tracker.log(metrics)
        append(self.path / METRICS, (json.dumps(metrics) + "\n").encode())

    def save(self, model: MultiTaskTransformer, dev: dict | None) -> str:
        """Replace model/ by this model with its dev scores, and point runs/latest to this run.

        Returns the SHA-256 of its file of weights."""
        card = self._card(dev, None, kept_calibration(self.settings, self.prepared.heads))
        checksums = save_model(model, self.prepared.backbone.folder, self.model, card)
        if self.is_in_runs:
            self.is_in_runs = _link_latest(self.path)
        return checksums["model.safetensors"]

    def finish(
        self,
        model: MultiTaskTransformer,
        dev: dict | None,
        test: Scores | None,
        calibration: Calibration,
        page: bytes,
    ) -> None:
        """Write the report, and the temperatures, thresholds and test scores of the best model."""
        card = self._card(dev, test, calibration)
        files = {"config.json": config_file(model), "README.md": card.encode()}
        if calibration.thresholds:
            files[THRESHOLDS] = calibration.thresholds.to_json()
        update_with_checksums(self.model, files)
        with atomic_file(self.report) as file:
            file.write(page)
        self.log({"test": test and test.headline()})

    def _card(self, dev: dict | None, test: Scores | None, calibration: Calibration) -> str:
        p, (temperatures, origins, thresholds) = self.prepared, calibration
        parts = dev, test, temperatures, thresholds, origins
        return model_card(self.settings, p.backbone, p.labels, p.splits, *parts)

    def facts(self, progress: Progress) -> RunFacts:
        """What the report shows about the run, besides the predictions of its model."""
        return RunFacts(
            self.path,
            self.path / CONFIG,
            self.settings,
            progress.metrics,
            progress.best_epoch,
            {name: (len(split), len(split.skipped)) for name, split in self.prepared.splits.items()},
            self.origin.sources,
            {"processes": self.origin.processes, **self.origin.machine},
            self.prepared.warnings,
        )

    def has_model(self, checksum: str) -> bool:
        """Whether model/ is undamaged and its weights have this SHA-256."""
        try:
            return verify_checksums(self.model)["model.safetensors"] == checksum
        except (ChecksumError, KeyError):
            return False

    def write_checkpoint(self, step: int, state: Mapping[str, Any]) -> None:
        """Write a trainer's `state_dict` as a checkpoint, unless the last one has the same progress."""
        if state["progress"] != self.saved_progress:
            facts = {name: value for name, value in state.items() if name != "tensors"}
            self.checkpoints.save(step, {**facts, "origin": asdict(self.origin)}, tensor_files(state))
            self.saved_progress = state["progress"]

    def load_newest_checkpoint(self) -> Checkpoint | None:
        """The newest undamaged checkpoint, or None if there is none yet; cuts metrics.jsonl to match it. Logs
        which checkpoints it skips.

        Raises InputError if all checkpoints are damaged, or the newest has other data or settings."""
        checkpoint, skipped = self.checkpoints.newest()
        if skipped and checkpoint is None:
            raise InputError(
                "\n".join([*skipped, f"{self.path}: no undamaged checkpoint is left to resume from"])
            )
        for line in skipped:
            logger.warning(f"{line}; not used")
        if checkpoint:
            resume.check_origin(self.origin, checkpoint)
        metrics = checkpoint.facts["progress"]["metrics"] if checkpoint else []
        with atomic_file(self.path / METRICS) as file:
            file.write("".join(json.dumps(row) + "\n" for row in metrics).encode())
        if checkpoint is None:
            logger.warning(f"{self.path}: there is no checkpoint yet; starting from the beginning")
        return checkpoint


def open_run_folder(trainer: Trainer, old: Path | None) -> RunFolder | None:
    """The run's folder in the first process, None in the others. All processes must call it.

    Args:
        old: folder of the run to resume; the trainer loads its newest checkpoint. None makes a new folder.

    Raises InputError if the run can't resume: other settings or data, damaged, or in use."""
    with ExitStack() as if_it_fails:
        return _open(trainer, old, if_it_fails)


def _open(trainer: Trainer, old: Path | None, if_it_fails: ExitStack) -> RunFolder | None:
    settings = resolve_settings(trainer.settings, trainer.prepared, str(trainer.device))
    origin = resume.origin_of(settings, trainer.prepared, trainer.device)
    folder = checkpoint = None
    with distributed.main_process_first():
        if old:
            resume.check_settings(settings, existing_runs.run_settings(old), old)
        if distributed.rank() == 0:
            parts = origin, settings, trainer.prepared
            folder = RunFolder(old, *parts) if old else _new_run(*parts)
            if_it_fails.callback(folder.close)
        if old:
            checkpoint = (
                folder.load_newest_checkpoint() if folder else Checkpoints(old / CHECKPOINTS).newest()[0]
            )
    if checkpoint:
        trainer.load_state_dict({**checkpoint.facts, "tensors": tensors_from_files(checkpoint.files)})
        if folder and trainer.best_checksum and not folder.has_model(trainer.best_checksum):
            with use_best_weights(trainer):
                folder.save(merge_lora(trainer.model), trainer.progress.best_dev)
        progress = trainer.progress
        print(f"Resuming {old} after step {trainer.steps}, {progress.step} of epoch {progress.epoch}")
    if folder and (name := settings.training.tracker):
        folder.tracker = Tracker(name, folder.path, flatten_settings(settings), trainer.progress.metrics)
    if_it_fails.pop_all()
    return folder


def save_checkpoint(trainer: Trainer, folder: RunFolder | None) -> None:
    """Write a checkpoint. All processes must call it; the first one, which has the folder, writes.

    Raises InputError if a step was not finite."""
    trainer.raise_if_not_finite()
    state = trainer.state_dict()
    if folder:
        folder.write_checkpoint(trainer.steps, state)


@contextmanager
def resume_hint_on_failure(folder: RunFolder | None) -> Iterator[None]:
    """Close the folder after this block. If a signal or an error ends it, tell how to resume the run."""
    try:
        yield
    except (StoppedBySignal, OSError, InputError) as error:
        if folder is None:
            raise
        checkpoints = folder.checkpoints.good
        state = f"the newest checkpoint is {checkpoints[-1]}" if checkpoints else "there is no checkpoint yet"
        model = f", the best model so far {folder.model}" if folder.model.exists() else ""
        command = f"python task_4.py --resume {shlex.quote(str(folder.path))}"
        if isinstance(error, StoppedBySignal):
            raise error.with_hint(f"{state}{model}; to resume: {command}") from None
        if isinstance(error, Diverged):  # it would do so again
            lower = {key: float(f"{rate / 10:g}") for key, rate in error.rates.items()}
            hint = f"a new run with a lower rate: {resume.train_on_command(folder.path, lower)}"
        else:
            hint = f"to resume when the cause is fixed: {command}"
        logger.warning(f"{state}{model}; {hint}")
        raise
    finally:
        if folder:
            folder.close()


def _link_latest(run: Path) -> bool:
    """Make runs/latest a link to a run in runs/ → whether it is one; if not, logs a warning."""
    link = RUNS / f".latest.{os.getpid()}"
    link.unlink(missing_ok=True)
    try:
        link.symlink_to(run.name)
    except OSError as error:  # Windows wants a privilege, and some disks have no links
        logger.warning(f"{LATEST}: no link can be made ({error.strerror}); name the model: --model DIR")
        return False
    rename(link, LATEST)
    return True


def _new_run(origin: resume.Origin, settings: Settings, prepared: Prepared) -> RunFolder:
    """Create the folder. Raises InputError if it exists and is not empty: no run is overwritten."""
    path = existing_runs.create_folder(settings.output_dir)
    folder = RunFolder(path, origin, settings, prepared)
    existing_runs.check_output_dir(str(path))  # another run may have written to it meanwhile
    with atomic_file(path / CONFIG) as file:
        file.write(existing_runs.settings_file(path, settings))
    return folder
