"""What a trained model is worth on annotated rows: scores, how much of them is chance, how far its confidence
can be trusted, and its surest mistakes; and two models side by side."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
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
from multitask.evaluation.calibration import ConfidenceBins
from multitask.evaluation.corpus_predictions import (
    CorpusPredictions,
    class_bins,
    entity_bins,
    predict_with_confidence,
)
from multitask.evaluation.intervals import (
    FEW,
    METRICS,
    RESAMPLES,
    Comparison,
    RowCounts,
    bootstrap_difference,
    bootstrap_intervals,
    count_by_row,
)
from multitask.evaluation.metrics import Scores, score, scores_table
from multitask.evaluation.mistakes import Mistake, most_confident_mistakes
from multitask.evaluation.plots import confusion, draw_confusion, draw_reliability
from multitask.inference.decoding import predict_corpus
from multitask.inference.predictor import Predictor

logger = logging.getLogger(__name__)

_UNKNOWN = "(not in train)"


@dataclass(frozen=True)
class Evaluation:
    """A model's answers to a corpus, and their scores."""

    model: str
    files: tuple[str, ...]
    labels: LabelSpace
    temperatures: tuple[float, float]
    corpus: EncodedCorpus
    said: CorpusPredictions
    scores: Scores

    @property
    def tasks(self) -> set[str]:
        """Those that have a score."""
        return {task for task in TASKS if getattr(self.scores, task)}

    def row_counts(self, tasks: Collection[str] = TASKS) -> RowCounts:
        classes = self.said.classes if "task_a" in tasks else None
        return count_by_row(self.corpus, self.labels, classes, self.said.tags if "task_b" in tasks else None)

    def bins(self) -> dict[str, tuple[float, list[ConfidenceBins]]]:
        """The model's temperature, and answers by confidence at temperature 1 and at the model's own."""
        found = {}
        if self.scores.task_a:
            found["classes"] = self.temperatures[0], class_bins(self.said, self.corpus)
        if self.scores.task_b:
            found["words' tags"] = self.temperatures[1], list(self.said.word_bins)
            found["found entities"] = self.temperatures[1], entity_bins(self.said)
        return found


def evaluate(
    model: Any,
    corpus: EncodedCorpus,
    labels: LabelSpace,
    tasks: Collection[str] = TASKS,
    progress: Callable[[int], object] | None = None,
) -> Scores:
    """Scores of a model, or a Runner, in the named tasks, of those that it has names for."""
    return score(corpus, labels, *predict_corpus(model, corpus, labels, tasks, progress))


def evaluate_file(predictor: Predictor, model: str, file: str, second: bool = False) -> Evaluation:
    """Let a folder's model answer all rows. Says which labels it can't know; of a second model by its name.

    Raises InputError where the file can't be read, and where no row is annotated for what it has learned."""
    labels, config = predictor.labels, predictor.config
    split = read_split([file], WordTokenizer(predictor.tokenizer), config.max_length, config.stride)
    unknown = warn_unknown_labels(file, split, labels)
    for line in [f"{model}: {line}" for line in unknown] if second else [*split.notices, *unknown]:
        logger.warning(line)
    corpus = split.corpus(labels)
    has_class = bool(labels.classes) and (corpus.row_classes != UNLABELLED).any()
    if not has_class and not (labels.types and corpus.row_tagged.any()):
        raise InputError(f"{file}: no row is annotated for what {model} has learned")
    with tqdm(total=len(corpus), unit=" rows", disable=None) as progress:
        return evaluate_corpus(predictor, model, [file], corpus, TASKS, progress.update)


def evaluate_corpus(
    predictor: Predictor,
    model: str,
    files: Sequence[str],
    corpus: EncodedCorpus,
    tasks: Collection[str] = TASKS,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Let a model answer all rows of a corpus, which was encoded from these files. Scores are those that
    `evaluate` gives for these tasks, of several processes too."""
    labels, config = predictor.labels, predictor.config
    said = predict_with_confidence(predictor, corpus, progress, tasks)
    temperatures = float(config.temperature_task_a), float(config.temperature_task_b)
    scores = score(corpus, labels, said.classes, said.tags)
    return Evaluation(model, tuple(files), labels, temperatures, corpus, said, scores)


def evaluation_to_dict(a: Evaluation, b: Evaluation | None = None) -> dict:
    """All figures, as JSON has them; `b` is another model's answers to the same file."""
    row = a.scores.to_dict()
    intervals = bootstrap_intervals(a.row_counts())
    row["intervals"] = {name: limits and list(limits) for name, limits in intervals.items()}
    row["calibration"] = {
        name: {
            "answers": int(before.count.sum()),
            "temperature": temperature,
            "ece_at_temperature_1": before.error,
            "ece": after.error,
        }
        for name, (temperature, (before, after)) in a.bins().items()
    }
    mistakes = most_confident_mistakes(a.files, a.corpus, a.labels, a.said)
    row["mistakes"] = [mistake._asdict() for mistake in mistakes]
    if b is not None:
        row["against"] = {"model": b.model} | {
            name: found and {**found._asdict(), "verdict": found.verdict}
            for name, found in compare_models(a, b).items()
        }
    return row


def compare_models(a: Evaluation, b: Evaluation) -> dict[str, Comparison | None]:
    """Two models on the same rows, in the tasks that both have learned; InputError where there is none."""
    if not np.array_equal(a.corpus.row_lines, b.corpus.row_lines):
        raise InputError(f"{', '.join(a.files)}: changed while it was read")
    tasks = a.tasks & b.tasks
    if not tasks:
        files = ", ".join(a.files)
        raise InputError(f"{a.model} and {b.model} have no task in common that {files} is annotated for")
    for task in sorted(a.tasks ^ b.tasks):
        logger.info(f"{task} is not compared: {(b if task in a.tasks else a).model} has not learned it")
    return bootstrap_difference(a.row_counts(tasks), b.row_counts(tasks))


def evaluation_to_text(a: Evaluation, row: dict) -> str:
    """The scores and all `evaluation_to_dict` for a person to read."""
    rows = len(a.corpus)
    few = f"; of fewer than {FEW} rows they say little" if rows < FEW else ""
    found = [scores_table(a.scores), f"95 % intervals, {RESAMPLES:,} resamples of {rows:,} rows{few}"]
    for name in METRICS:
        if limits := row["intervals"][name]:
            found.append(f"  {name:<11}  {row[name]:.4f}  {limits[0]:.4f} to {limits[1]:.4f}")
    found.append("Expected calibration error")
    found.append(f"  {'':<14}  answers  at temperature 1  as it is  temperature")
    for name, c in row["calibration"].items():
        before, after = c["ece_at_temperature_1"], c["ece"]
        found.append(
            f"  {name:<14}  {c['answers']:7,}  {before:16.4f}  {after:8.4f}  {c['temperature']:11.4f}"
        )
    if mistakes := [Mistake(**mistake) for mistake in row["mistakes"]]:
        found += [f"The {len(mistakes)} wrong answers that it was surest of", *map(str, mistakes)]
    if "against" in row:
        found += _comparison(a.model, row["against"])
    return "\n".join(found)


def _comparison(model: str, found: dict) -> list[str]:
    rows = [
        f"First: {model}; second: {found['model']}; both scored on the same resamples",
        "  score         first  second  difference  95 % interval            p  verdict",
    ]
    for name in METRICS:
        if c := found[name]:
            limits = f"{c['low']:+.4f} to {c['high']:+.4f}"
            rows.append(
                f"  {name:<11}  {c['first']:.4f}  {c['second']:.4f}  {c['difference']:+10.4f}  {limits}  "
                f"{c['p']:.4f}  {c['verdict']}"
            )
    return rows


def confusion_matrices(a: Evaluation) -> dict[str, tuple[np.ndarray, list[str]]]:
    """Of each task that has a score, how often each id was said where each is right, and their names."""
    corpus, said, found = a.corpus, a.said, {}
    if a.scores.task_a:
        names, kept = [*a.labels.classes, _UNKNOWN], corpus.row_classes != UNLABELLED
        found["task_a"] = confusion(corpus.row_classes[kept], said.classes[kept], len(names)), names
    if a.scores.task_b:
        names, kept = ["O", *a.labels.types, _UNKNOWN], corpus.word_tags != UNLABELLED
        # under BIO two tags are of one type
        gold, tags = (
            tags[kept] if a.labels.scheme == "IO" else (tags[kept] + 1) // 2
            for tags in (corpus.word_tags, said.tags)
        )
        found["task_b"] = confusion(gold, tags, len(names)), names
    return found


def reliability(a: Evaluation) -> dict[str, list[ConfidenceBins]]:
    """What `draw_reliability` shows: at temperature 1 and, where that is another, at the model's own."""
    return {name: each if t != 1 else each[:1] for name, (t, each) in a.bins().items()}


def draw_plots(a: Evaluation, folder: Path) -> list[Path]:
    """Confusion matrices and reliability diagrams of what is scored, as PNG files in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {"task_a": "confusion_classes", "task_b": "confusion_types"}
    titles = {"task_a": "Classes of sentences", "task_b": "Types of words"}
    pictures = {
        names[task]: draw_confusion(titles[task], *found) for task, found in confusion_matrices(a).items()
    }
    pictures["reliability"] = draw_reliability(reliability(a))
    for name, content in pictures.items():
        with atomic_file(folder / f"{name}.png") as file:
            file.write(content)
    return [folder / f"{name}.png" for name in pictures]
