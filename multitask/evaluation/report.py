"""report.html, the page of a run for a person: how it trained, what its model is worth, where it goes wrong,
and what it was made of."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from multitask.common.errors import InputError
from multitask.common.html import Number, beside, document, folded, heading, paragraph, picture, table
from multitask.config.help_text import flatten_settings
from multitask.config.schema import Settings
from multitask.data.labels import TASKS
from multitask.data.source_rows import read_source_rows, truncate
from multitask.evaluation.evaluate import Evaluation, confusion_matrices, reliability
from multitask.evaluation.intervals import METRICS, RESAMPLES, bootstrap_intervals
from multitask.evaluation.metrics import Score
from multitask.evaluation.mistakes import most_confident_mistakes
from multitask.evaluation.plots import draw_confusion, draw_curves, draw_reliability
from multitask.evaluation.slowest import slowest_rows
from multitask.inference.runner import Runner

logger = logging.getLogger(__name__)

_SCORES = dict(zip(METRICS, ("class right", "macro-F1 of classes", "entity F1", "whole sentence right")))
_TITLES = {  # heading, picture, what a row is
    "task_a": ("Classes", "Classes of sentences", "class"),
    "task_b": ("Entities", "Types of words", "type"),
}
_CONFUSED = 10  # pairs of names that are listed


class RunFacts(NamedTuple):
    """What a report says of a run, besides the answers of its model."""

    folder: Path
    config: Path  # its resolved settings
    settings: Settings
    metrics: Sequence[dict]  # of each epoch, as in metrics.jsonl
    best_epoch: int  # from 1; the last one without dev
    rows: Mapping[str, tuple[int, int]]  # split → rows used, rows left out
    sources: Mapping[str, str]  # file → SHA-256
    machine: Mapping[str, object]


class Report:
    """A finished run → its page. `shown` are the answers of the model that was kept to a `split`; None where
    there was neither test nor dev."""

    def __init__(self, run: RunFacts, split: str | None, shown: Evaluation | None):
        self.run, self.split, self.shown = run, split, shown
        self.undrawn: dict[str, None] = {}  # why

    def page(self, runner: Runner) -> bytes:
        """The page. Of a picture that can't be drawn and of rows that can't be read again it says why."""
        parts = [*self.result(), *self.training()]
        if self.shown:
            for task in confusion_matrices(self.shown):
                parts += self.task(task)
            parts += [*self.confidence(), *self.worst(), *self.slowest(runner)]
        parts += self.origin()
        for why in self.undrawn:
            logger.warning(f"report.html lacks pictures: {why}")
        return document(f"Training run {self.run.folder}", parts)

    def result(self) -> Iterator[str]:
        if not self.shown:
            yield paragraph(
                "The run had neither a dev nor a test set, so nothing is known of its model.", "lead"
            )
            return
        scores, rows = self.shown.scores.headline(), len(self.shown.corpus)
        said = [f"{what} {scores[name]:.4f}" for name, what in _SCORES.items() if scores[name] is not None]
        yield paragraph(f"On {rows:,} sentences of {self.split}: {', '.join(said)}.", "lead")
        limits, dev = (
            bootstrap_intervals(self.shown.row_counts()),
            self.run.metrics[self.run.best_epoch - 1]["dev"] or {},
        )
        columns = [dev.get, scores.get] if self.split == "test" else [scores.get]
        yield table(
            f"Scores; 95 % intervals by {RESAMPLES:,} resamples of the rows of {self.split}",
            ["score", *(["dev"] if len(columns) == 2 else []), str(self.split), "lower end", "upper end"],
            [
                [what, *(of(name) for of in columns), *(limits[name] or (None, None))]
                for name, what in _SCORES.items()
            ],
        )

    def training(self) -> Iterator[str]:
        metrics = self.run.metrics
        trained = [task for task in TASKS if metrics[0][f"loss_{task}"] is not None]
        names = {f"loss_{task}": f"task {task[-1].upper()}" for task in trained}
        names = {"loss": "weighted sum", **names} if len(trained) > 1 else names
        losses = {what: [row[name] for row in metrics] for name, what in names.items()}
        devs = [row["dev"] or {} for row in metrics]
        scores = {what: [dev.get(name) for dev in devs] for name, what in _SCORES.items()}
        scores = {what: values for what, values in scores.items() if values[0] is not None}
        best = self.run.best_epoch if scores else None
        yield heading("How it trained")
        panels = {"loss": losses, "score on dev": scores} if scores else {"loss": losses}
        yield beside(
            self.drawn(_ends(what, curves), partial(draw_curves, what, curves, best))
            for what, curves in panels.items()
        )
        kept = f"the one of epoch {best}, which is best on dev" if best else "the one of the last epoch"
        yield paragraph(f"The model that was kept is {kept}.")
        names = [*(f"loss, {what}" for what in losses), *(f"dev: {what}" for what in scores)]
        epochs = [
            [
                row["epoch"],
                *values,
                Number(f"{row['seconds']:.1f}"),
                Number(f"{row['sentences_per_second']:,.1f}"),
            ]
            for row, *values in zip(metrics, *losses.values(), *scores.values())
        ]
        all_epochs = table("Epochs", ["epoch", *names, "seconds", "sentences a second"], epochs)
        yield folded("Every epoch in numbers", all_epochs)

    def task(self, task: str) -> Iterator[str]:
        title, matrix, what = _TITLES[task]
        scores = self.shown.scores
        per_name = scores.task_a.per_class if task == "task_a" else scores.task_b.per_type
        rows = [[name, *_rates(score)] for name, score in per_name.items()]
        head = [what, "precision", "recall", "F1", "gold", "predicted"]
        yield heading(title)
        yield table(f"Each {what} in {self.split}", head, rows)
        counts, names = confusion_matrices(self.shown)[task]
        right, total = int(counts.trace()), int(counts.sum())
        unit = "sentences" if task == "task_a" else "words"
        alt = f"Confusion matrix: {right:,} of {total:,} {unit} are on its diagonal, right."
        yield self.drawn(alt, partial(draw_confusion, matrix, counts, names))
        wrong = counts - np.diag(counts.diagonal())
        order = [at for at in np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSED] if wrong.flat[at]]
        pairs = [(int(at) // len(names), int(at) % len(names)) for at in order]
        if pairs:
            listed = [[names[gold], names[said], int(wrong[gold, said])] for gold, said in pairs]
            yield table(f"Most often taken for another, in {unit}", ["right", "said", "times"], listed)

    def confidence(self) -> Iterator[str]:
        yield heading("How far its confidence can be trusted")
        yield paragraph(
            "Of answers that are said with a probability of 0.9, nine in ten should be right. The expected "
            "calibration error is how far off that is on average. A "
            "temperature that is not 1 was fitted on dev."
        )
        found = self.shown.bins()
        rows = [
            [what, int(before.count.sum()), temperature, before.error, after.error]
            for what, (temperature, (before, after)) in found.items()
        ]
        head = ["answers", "how many", "temperature", "error without it", "error with it"]
        yield table(f"Expected calibration error on {self.split}", head, rows)
        yield beside(
            self.drawn(
                f"Reliability diagram of {what}: the share that is right, by confidence.",
                partial(draw_reliability, {what: panel}),
            )
            for what, panel in reliability(self.shown).items()
        )

    def worst(self) -> Iterator[str]:
        a = self.shown
        yield heading("The wrong answers that it was surest of")
        try:
            mistakes = most_confident_mistakes(a.files, a.corpus, a.labels, a.predictions)
        except (InputError, OSError) as error:
            yield paragraph(f"They can't be shown: {error}")
            return
        if not mistakes:
            yield paragraph(f"None: all answers on {self.split} are right.")
            return
        yield paragraph("It may be the label that is wrong. The place is in brackets.")
        rows = [[f"{m.file}:{m.line}", m.probability, m.predicted, m.gold, m.sentence] for m in mistakes]
        yield table("The surest first", ["row", "probability", "said", "right", "sentence"], rows)

    def slowest(self, runner: Runner) -> Iterator[str]:
        a = self.shown
        slow, measured = slowest_rows(runner, a.corpus)
        try:
            texts = read_source_rows(a.files, {row.row for row in slow}, a.corpus)
            sentences, note = {row: truncate(example.text) for row, example in texts.items()}, []
        except (InputError, OSError) as error:
            sentences, note = {}, [paragraph(f"Their sentences can't be shown: {error}")]
        yield heading("The slowest rows")
        yield paragraph(
            f"Of the {measured} rows of {self.split} with the most tokens, read one by one: the median time "
            "of the model alone, on this machine."
        )
        yield from note
        rows = [
            [
                f"{a.files[a.corpus.file_of_row[s.row]]}:{a.corpus.row_lines[s.row]}",
                Number(f"{s.milliseconds:.1f}"),
                *(s.tokens, s.windows, sentences.get(s.row)),
            ]
            for s in slow
        ]
        yield table("The slowest first", ["row", "milliseconds", "tokens", "windows", "sentence"], rows)

    def origin(self) -> Iterator[str]:
        run = self.run
        settings, defaults = flatten_settings(run.settings), flatten_settings(Settings())
        changed = [[key, value] for key, value in settings.items() if value != defaults[key]]
        yield heading("What it was made of")
        yield paragraph(f"The same run again: python task_4.py --config {run.config} output_dir=null")
        yield table("Settings that are not the defaults", ["setting", "value"], _shown(changed))
        yield folded("All settings", table("Settings", ["setting", "value"], _shown(settings.items())))
        splits = [[name, *counts] for name, counts in run.rows.items()]
        yield table("Rows", ["split", "used", "left out"], splits)
        yield table("Files that it read", ["file", "SHA-256"], run.sources.items())
        yield table("Machine and versions", ["what", "value"], _shown(run.machine.items()))

    def drawn(self, alt: str, paint: Callable[[str], bytes]) -> str:
        try:
            return picture(alt, paint("svg"))
        except Exception as error:  # whatever a drawing library meets: a trained model is worth more
            why = f"{type(error).__name__}: {error}"
            self.undrawn[why] = None
            return paragraph(f"A picture is missing here, which could not be drawn ({why}). {alt}")


def _ends(what: str, curves: Mapping[str, list[float]]) -> str:
    """What a picture of curves shows, in words."""
    ends = "; ".join(f"{name} from {values[0]:.4f} to {values[-1]:.4f}" for name, values in curves.items())
    return f"Curves of the {what} by epoch: {ends}."


def _rates(score: Score) -> list[float | int]:
    return [score.precision, score.recall, score.f1, score.gold, score.predicted]


def _shown(pairs) -> list[list[str]]:
    """Values as text: a rate of 2e-05 is not 0.0000."""
    return [[key, "null" if value is None else str(value)] for key, value in pairs]
