"""report.html, the page of a run: its training, scores, mistakes, settings and data."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from multitask.common.errors import InputError
from multitask.common.html import Number, template_environment
from multitask.config.help_text import flatten_settings
from multitask.config.schema import Settings
from multitask.data.labels import TASKS
from multitask.evaluation.evaluate import Evaluation, confusion_matrices, reliability, risk_curves
from multitask.evaluation.intervals import METRICS, RESAMPLES, bootstrap_intervals
from multitask.evaluation.mistakes import most_confident_mistakes
from multitask.evaluation.plots import draw_confusion, draw_curves, draw_reliability, draw_risk

logger = logging.getLogger(__name__)

_TEMPLATES = template_environment(Path(__file__).with_name("templates"))
_SCORES = dict(zip(METRICS, ("accuracy of classes", "macro-F1 of classes", "entity F1", "exact match")))
_CONFUSIONS = 10  # pairs of names that are listed


class RunFacts(NamedTuple):
    """What a report tells about a run, besides its model's predictions."""

    folder: Path
    config: Path  # the file with its resolved settings
    settings: Settings
    metrics: Sequence[dict]  # of each epoch, as in metrics.jsonl
    best_epoch: int  # from 1; the last one without dev
    rows: Mapping[str, tuple[int, int]]  # split → rows used, rows left out
    sources: Mapping[str, str]  # file → SHA-256
    machine: Mapping[str, object]
    warnings: Sequence[str] = ()  # about its settings and data


class Picture(NamedTuple):
    """A plot as SVG, or the error that prevented it; `alt` describes it in words."""

    alt: str
    svg: bytes | None
    error: str = ""


class Report:
    """The page of a finished run. `evaluation` is that of the best model on `split`, test or else dev; both
    are None for a run without test and dev."""

    def __init__(self, run: RunFacts, split: str | None, evaluation: Evaluation | None):
        self.run, self.split, self.evaluation = run, split, evaluation
        self._errors: dict[str, None] = {}  # of plots, each once

    def page(self) -> bytes:
        """report.html. Instead of a plot that can't be drawn it holds the reason, which is also logged."""
        values = {"run": self.run, "split": self.split, "evaluation": self.evaluation, **self._training()}
        if self.evaluation:
            values |= {**self._scores(self.evaluation), "tasks": self._tasks(self.evaluation)}
            values |= {**self._calibration(self.evaluation), **self._selective(self.evaluation)}
            values |= self._mistakes(self.evaluation)
        page = _TEMPLATES.get_template("report.html").render(values, **self._settings())
        for error in self._errors:
            logger.warning(f"report.html lacks pictures: {error}")
        return page.encode("utf-8", "backslashreplace")  # a path may hold bytes that are not UTF-8

    def picture(self, alt: str, draw: Callable[[str], bytes]) -> Picture | None:
        """The plot that `draw` gives for the file type "svg"."""
        try:
            return Picture(alt, draw("svg"))
        except Exception as error:  # of any kind: a plot must not cost the trained model
            reason = f"{type(error).__name__}: {error}"
            self._errors[reason] = None
            return Picture(alt, None, reason)

    def _scores(self, evaluation: Evaluation) -> dict[str, object]:
        scores, intervals = evaluation.scores.headline(), bootstrap_intervals(evaluation.row_counts())
        columns = {self.split: scores}
        if self.split == "test":
            columns = {"dev": self.run.metrics[self.run.best_epoch - 1]["dev"] or {}, **columns}
        return {
            "lead": [f"{name} {scores[key]:.4f}" for key, name in _SCORES.items() if scores[key] is not None],
            "resamples": RESAMPLES,
            "score_columns": list(columns),
            "scores": [
                [name, *(column.get(key) for column in columns.values()), *(intervals[key] or (None, None))]
                for key, name in _SCORES.items()
            ],
        }

    def _training(self) -> dict[str, object]:
        metrics = self.run.metrics
        tasks = [task for task in TASKS if metrics[0][f"loss_{task}"] is not None]
        names = {f"loss_{task}": f"task {task[-1].upper()}" for task in tasks}
        names = {"loss": "weighted sum", **names} if len(tasks) > 1 else names
        losses = {name: [row[key] for row in metrics] for key, name in names.items()}
        dev = [row["dev"] or {} for row in metrics]
        scores = {name: [row.get(key) for row in dev] for key, name in _SCORES.items()}
        scores = {name: values for name, values in scores.items() if values[0] is not None}
        best = self.run.best_epoch if scores else None
        panels = {"loss": losses, **({"score on dev": scores} if scores else {})}
        speeds = [
            [Number(f"{row['seconds']:.1f}"), Number(f"{row['sentences_per_second']:,.1f}")]
            for row in metrics
        ]
        columns = zip(metrics, speeds, *losses.values(), *scores.values())
        return {
            "best_epoch": best,
            "curves": [
                self.picture(_describe_curves(name, curves), partial(draw_curves, name, curves, best))
                for name, curves in panels.items()
            ],
            "epoch_columns": [*(f"loss, {name}" for name in losses), *(f"dev: {name}" for name in scores)],
            "epochs": [[row["epoch"], *values, *speed] for row, speed, *values in columns],
        }

    def _tasks(self, evaluation: Evaluation) -> list[dict[str, object]]:
        """For each task its scores by name, its confusion matrix and the most frequent confusions; `name` is
        what a row of scores is about, `unit` what the matrix counts."""
        words_of = {"task_a": ("Classes", "class", "sentences"), "task_b": ("Entities", "type", "words")}
        sections: list[dict[str, object]] = []
        for task, (title, counts, names) in confusion_matrices(evaluation).items():
            (heading, name, unit), scores = words_of[task], getattr(evaluation.scores, task).per_label
            correct, total = int(counts.trace()), int(counts.sum())
            alt = f"Confusion matrix: {correct:,} of {total:,} {unit} are on its diagonal, correct."
            picture = self.picture(alt, partial(draw_confusion, title, counts, names))
            rows = [[label, s.precision, s.recall, s.f1, s.gold, s.predicted] for label, s in scores.items()]
            section = {"title": heading, "name": name, "unit": unit, "scores": rows, "picture": picture}
            sections.append({**section, "confusions": _confusions(counts, names)})
        return sections

    def _calibration(self, evaluation: Evaluation) -> dict[str, object]:
        return {
            "calibration": [
                [name, int(before.count.sum()), temperature, before.error, after.error]
                for name, (temperature, (before, after)) in evaluation.bins().items()
            ],
            "reliability": [
                self.picture(
                    f"Reliability diagram of {name}: accuracy by confidence.",
                    partial(draw_reliability, {name: bins}),
                )
                for name, bins in reliability(evaluation).items()
            ],
        }

    def _selective(self, evaluation: Evaluation) -> dict[str, object]:
        return {
            "levels": [
                [name, level.wanted, level.threshold, level.share_kept, level.share_correct]
                for name, (_, of_levels) in evaluation.selective().items()
                for level in of_levels
            ],
            "risks": [
                self.picture(
                    f"Risk of {name} by coverage: the share of wrong ones among the most confident.",
                    partial(draw_risk, {name: curve}),
                )
                for name, curve in risk_curves(evaluation).items()
            ],
        }

    def _mistakes(self, evaluation: Evaluation) -> dict[str, object]:
        try:
            mistakes = most_confident_mistakes(
                evaluation.files, evaluation.corpus, evaluation.labels, evaluation.predictions
            )
        except (InputError, OSError) as error:
            return {"mistakes_error": str(error)}
        rows = [[f"{m.file}:{m.line}", m.probability, m.predicted, m.gold, m.sentence] for m in mistakes]
        return {"mistakes": rows, "mistakes_error": None}

    def _settings(self) -> dict[str, object]:
        settings, defaults = flatten_settings(self.run.settings), flatten_settings(Settings())
        return {
            "changed_settings": _as_text((k, value) for k, value in settings.items() if value != defaults[k]),
            "settings": _as_text(settings.items()),
            "row_counts": [[split, *counts] for split, counts in self.run.rows.items()],
            "machine": _as_text(self.run.machine.items()),
        }


def _describe_curves(name: str, curves: Mapping[str, list[float]]) -> str:
    ends = "; ".join(f"{curve} from {values[0]:.4f} to {values[-1]:.4f}" for curve, values in curves.items())
    return f"Curves of the {name} by epoch: {ends}."


def _confusions(counts: np.ndarray, names: Sequence[str]) -> list[list[object]]:
    """The most frequent confusions of a matrix (C, C): gold name, predicted name, count."""
    wrong = counts - np.diag(counts.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS]
    cells = zip(*np.unravel_index(order, wrong.shape))
    return [[names[i], names[j], int(wrong[i, j])] for i, j in cells if wrong[i, j]]


def _as_text(pairs: Iterable[tuple[str, object]]) -> list[list[str]]:
    """Values as text, since a number would be rounded: 2e-05 to 0.0000."""
    return [[key, "null" if value is None else str(value)] for key, value in pairs]
