"""Evaluates a model on annotated rows, alone or compared with a second model."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from multitask.common.atomic_files import atomic_file
from multitask.common.errors import InputError
from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import TASKS, UNLABELLED, LabelSpace
from multitask.data.splits import read_split, warn_unknown_labels
from multitask.data.tokenization import WordTokenizer
from multitask.encoders.thresholds import Thresholds
from multitask.evaluation import intervals
from multitask.evaluation.calibration import ConfidenceBins
from multitask.evaluation.corpus_predictions import CorpusPredictions, predict_with_confidence
from multitask.evaluation.loss import LossSums
from multitask.evaluation.metrics import UNKNOWN_LABEL, Scores, score
from multitask.evaluation.mistakes import most_confident_mistakes
from multitask.evaluation.plots import confusion, draw_confusion, draw_reliability, draw_risk
from multitask.evaluation.selective import Answers, Level, answers, area_under_risk, levels
from multitask.inference.decoding import predict_corpus
from multitask.inference.predictor import Predictor

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """A model's predictions for a corpus, and their scores."""

    model: str  # its folder
    files: tuple[str, ...]  # of the corpus
    labels: LabelSpace
    temperatures: tuple[float, float]  # task A, task B
    corpus: EncodedCorpus
    predictions: CorpusPredictions
    scores: Scores
    thresholds: Thresholds | None = None  # that dev set in training
    raw: bool = False  # rows of tokens were read as raw texts

    @property
    def tasks(self) -> set[str]:
        """The tasks that have scores: "task_a", "task_b"."""
        return {task for task in TASKS if getattr(self.scores, task)}

    def row_counts(self, tasks: Collection[str] = TASKS) -> intervals.RowCounts:
        """What each row adds to the metrics of these tasks."""
        classes = self.predictions.classes if "task_a" in tasks else None
        tags = self.predictions.tags if "task_b" in tasks else None
        return intervals.count_by_row(self.corpus, self.labels, classes, tags)

    def bins(self) -> dict[str, tuple[float, list[ConfidenceBins]]]:
        """Name → the model's temperature, and confidence bins at temperature 1 and at that temperature."""
        bins: dict[str, tuple[float, list[ConfidenceBins]]] = {}
        if self.scores.task_a:
            bins["classes"] = self.temperatures[0], self.predictions.class_bins(self.corpus)
        if self.scores.task_b:
            bins["words' tags"] = self.temperatures[1], list(self.predictions.word_bins or ())
            bins["found entities"] = self.temperatures[1], self.predictions.entity_bins()
        return bins

    def selective(self) -> dict[str, tuple[Answers, list[Level]]]:
        """Name → the answers, and what the thresholds of dev do to them."""
        names = {"task_a": "classes", "task_b": "found entities"}
        return {
            names[task]: (found, levels(found, self.thresholds and getattr(self.thresholds, task)))
            for task, found in answers(self.predictions, self.corpus).items()
        }


def evaluate(
    model: Any,
    corpus: EncodedCorpus,
    labels: LabelSpace,
    tasks: Collection[str] = TASKS,
    loss_weights: Mapping[str, float] | None = None,
) -> Scores:
    """Only the scores of a model, or a Runner, on a corpus, in those of `tasks` that it has labels for. With
    the tasks' `loss_weights` they include the loss: see `LossSums`."""
    sums = None if loss_weights is None else LossSums(corpus)
    scores = score(corpus, labels, *predict_corpus(model, corpus, labels, tasks, sums.add if sums else None))
    return scores if sums is None else replace(scores, loss=sums.mean(loss_weights or {}))


def evaluate_file(
    predictor: Predictor, model: str, file: str, second: bool = False, raw: bool = False
) -> Evaluation:
    """Evaluate the model of a folder on an annotated file. Warns of labels that the model does not know; for
    a second model on the same file the warnings name it, and those about the file are not repeated.

    With `raw`, rows of tokens are joined to raw texts, whose words are found as in prediction. Raises
    InputError if the file cannot be read, or if no row is annotated for a task of the model."""
    labels, config = predictor.labels, predictor.config
    subwords = WordTokenizer(predictor.tokenizer)
    split = read_split([file], subwords, config.max_length, config.stride, raw=raw)
    unknown = warn_unknown_labels(file, split, labels)
    for line in [f"{model}: {line}" for line in unknown] if second else [*split.notices, *unknown]:
        logger.warning(line)
    corpus = split.corpus(labels)
    has_class = bool(labels.classes) and (corpus.row_classes != UNLABELLED).any()
    if not has_class and not (labels.types and corpus.row_tagged.any()):
        raise InputError(f"{file}: no row is annotated for what {model} has learned")
    with tqdm(total=len(corpus), unit=" rows", disable=None) as progress:
        evaluation = evaluate_corpus(predictor, model, [file], corpus, TASKS, progress.update)
    return replace(evaluation, raw=raw)


def evaluate_corpus(
    predictor: Predictor,
    model: str,
    files: Sequence[str],
    corpus: EncodedCorpus,
    tasks: Collection[str] = TASKS,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Evaluate a model on a corpus that was encoded from these files. Several processes share the rows, and
    all of them get the whole evaluation, with the scores of `evaluate`."""
    labels, config = predictor.labels, predictor.config
    predictions = predict_with_confidence(predictor, corpus, progress, tasks)
    temperatures = float(config.temperature_task_a), float(config.temperature_task_b)
    scores = score(corpus, labels, predictions.classes, predictions.tags)
    parts = corpus, predictions, scores, predictor.thresholds
    return Evaluation(model, tuple(files), labels, temperatures, *parts)


def evaluation_to_dict(first: Evaluation, second: Evaluation | None = None) -> dict:
    """All figures of an evaluation, for JSON, and its comparison with a second model on the same file. Raises
    InputError if a file has changed since it was read, or if the models share no scored task."""
    row = first.scores.to_dict()
    limits = intervals.bootstrap_intervals(first.row_counts())
    row["intervals"] = {name: interval and list(interval) for name, interval in limits.items()}
    row["calibration"] = {
        name: {
            "answers": int(before.count.sum()),
            "temperature": temperature,
            "ece_at_temperature_1": before.error,
            "ece": after.error,
        }
        for name, (temperature, (before, after)) in first.bins().items()
    }
    row["selective"] = {
        name: {"aurc": area_under_risk(*found), "levels": [level._asdict() for level in of_levels]}
        for name, (found, of_levels) in first.selective().items()
    }
    mistakes = most_confident_mistakes(
        first.files, first.corpus, first.labels, first.predictions, raw=first.raw
    )
    row["mistakes"] = [mistake.to_dict() for mistake in mistakes]
    if second is not None:
        row["against"] = {"model": second.model} | {
            name: comparison and {**comparison._asdict(), "verdict": comparison.verdict}
            for name, comparison in compare_models(first, second).items()
        }
    return row


def compare_models(first: Evaluation, second: Evaluation) -> dict[str, intervals.Comparison | None]:
    """Compare two models on the same rows in the tasks that are scored for both. Raises InputError if the
    rows are not the same, or if there is no such task."""
    files = ", ".join(first.files)
    if not np.array_equal(first.corpus.row_lines, second.corpus.row_lines):
        raise InputError(f"{files}: changed while it was read")
    tasks = first.tasks & second.tasks
    if not tasks:
        models = f"{first.model} and {second.model}"
        raise InputError(f"{models} have no task in common that {files} is annotated for")
    for task in sorted(first.tasks ^ second.tasks):
        model = (second if task in first.tasks else first).model
        logger.info(f"{task} is not compared: {model} has not learned it")
    return intervals.compare_means([first.row_counts(tasks)], [second.row_counts(tasks)])


def risk_curves(evaluation: Evaluation) -> dict[str, tuple[Answers, list[Level]]]:
    """The curves for `draw_risk`: without a task for which no prediction is wrong or none is made."""
    return {name: parts for name, parts in evaluation.selective().items() if not parts[0].correct.all()}


def confusion_matrices(evaluation: Evaluation) -> dict[str, tuple[str, np.ndarray, list[str]]]:
    """Task → title, (C, C) counts by gold id and predicted id, and C names, for each scored task."""
    corpus, labels, predictions = evaluation.corpus, evaluation.labels, evaluation.predictions
    matrices = {}
    if evaluation.scores.task_a and predictions.classes is not None:
        names, annotated = [*labels.classes, UNKNOWN_LABEL], corpus.row_classes != UNLABELLED
        gold, predicted = corpus.row_classes[annotated], predictions.classes[annotated]
        matrices["task_a"] = "Classes of sentences", confusion(gold, predicted, len(names)), names
    if evaluation.scores.task_b and predictions.tags is not None:
        names, annotated = ["O", *labels.types, UNKNOWN_LABEL], corpus.word_tags != UNLABELLED
        gold, predicted = corpus.word_tags[annotated], predictions.tags[annotated]
        if labels.scheme != "IO":  # B and I of a type → the type
            gold, predicted = (gold + 1) // 2, (predicted + 1) // 2
        matrices["task_b"] = "Types of words", confusion(gold, predicted, len(names)), names
    return matrices


def reliability(evaluation: Evaluation) -> dict[str, list[ConfidenceBins]]:
    """The bins for `draw_reliability`: at temperature 1 and, if different, at the model's own."""
    return {name: bins if t != 1 else bins[:1] for name, (t, bins) in evaluation.bins().items()}


def draw_plots(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write confusion matrices and reliability diagrams of the scored tasks to a folder, as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {"task_a": "confusion_classes", "task_b": "confusion_types"}
    plots = {names[task]: draw_confusion(*plot) for task, plot in confusion_matrices(evaluation).items()}
    plots["reliability"] = draw_reliability(reliability(evaluation))
    if curves := risk_curves(evaluation):
        plots["risk"] = draw_risk(curves)
    for name, content in plots.items():
        with atomic_file(folder / f"{name}.png") as file:
            file.write(content)
    return [folder / f"{name}.png" for name in plots]
