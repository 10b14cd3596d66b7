"""Calibration of a finished model: temperatures and thresholds that dev sets, or that a kept head brings."""

from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from multitask.config.schema import Settings
from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import TASKS, UNLABELLED
from multitask.encoders.thresholds import Thresholds, read_thresholds
from multitask.evaluation.calibration import fit_temperatures
from multitask.evaluation.selective import fit_thresholds
from multitask.inference.predictor import Predictor
from multitask.inference.runner import Runner
from multitask.plan.heads import Heads
from multitask.plan.starting_model import trains_encoder, trains_head

DEV, START = "dev", "start"


class Calibration(NamedTuple):
    """The temperatures (task A, task B) of a model, where each is from (DEV, START, or None for 1, which is
    fitted to nothing), and its thresholds."""

    temperatures: tuple[float, float]
    origins: tuple[str | None, str | None]
    thresholds: Thresholds | None


def kept_calibration(settings: Settings, heads: Heads) -> Calibration:
    """The calibration of the heads that are kept and not trained, as their starting model has it."""
    stored = read_thresholds(heads.start.folder) or Thresholds()
    kept = [heads.keeps(task) and not trains_head(settings, task) for task in TASKS]
    own = [float(getattr(heads.start.config, f"temperature_{task}", 1.0)) for task in TASKS]
    a, b = (temperature if keeps else 1.0 for temperature, keeps in zip(own, kept))
    first, second = (START if keeps else None for keeps in kept)
    thresholds = Thresholds(*(steps if keeps else None for steps, keeps in zip(stored, kept)))
    return Calibration((a, b), (first, second), thresholds if any(thresholds) else None)


def calibrate(
    runner: Runner, tokenizer: Tokenizer, dev: EncodedCorpus | None, settings: Settings, heads: Heads
) -> tuple[Predictor, Calibration]:
    """Set the temperatures in a model's configuration → a Predictor with thresholds, and their calibration.

    A head that is kept and not trained, under an encoder that is not trained either, predicts what it did:
    its calibration stays. Other heads are calibrated on dev, where dev is annotated for them. All processes
    must call it."""
    kept = kept_calibration(settings, heads)
    (a, b), origins = kept.temperatures, list(kept.origins)
    steps = (kept.thresholds or Thresholds())._asdict()
    annotated = {} if dev is None else annotated_tasks(dev)
    names = {"task_a": heads.labels.classes, "task_b": heads.labels.types}
    fitted = [bool(annotated.get(task) and names[task]) for task in TASKS]
    if not trains_encoder(settings.model, heads.start.config):
        fitted = [fits and origin != START for fits, origin in zip(fitted, origins)]
    if dev is not None and any(fitted):
        of_dev = fit_temperatures(runner, dev, heads.labels)
        a, b = of_dev[0] if fitted[0] else a, of_dev[1] if fitted[1] else b
    runner.config.temperature_task_a, runner.config.temperature_task_b = a, b
    predictor = Predictor(runner, tokenizer, heads.labels)
    unset = [task for task, fits in zip(TASKS, fitted) if fits or steps[task] is None]
    if dev is not None and unset:
        found = fit_thresholds(predictor, dev, unset) or Thresholds()
        steps |= {task: getattr(found, task) for task in unset}
    predictor.thresholds = Thresholds(**steps) if any(steps.values()) else None
    first, second = (DEV if fits else origin for fits, origin in zip(fitted, origins))
    return predictor, Calibration((a, b), (first, second), predictor.thresholds)


def annotated_tasks(corpus: EncodedCorpus) -> dict[str, bool]:
    """Whether a corpus has an annotation of each task."""
    return {
        "task_a": bool(np.any(corpus.row_classes != UNLABELLED)),
        "task_b": bool(corpus.row_tagged.any()),
    }
