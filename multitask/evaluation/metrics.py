"""Metrics of both tasks. A row that is not annotated for a task does not count for the task's metrics."""

from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import UNLABELLED, LabelSpace

UNKNOWN_LABEL = "(not in train)"  # stands for all labels that the model does not know


@dataclass(frozen=True)
class Score:
    """Precision, recall and F1 from counts; 0 where the denominator is 0."""

    correct: int
    predicted: int
    gold: int

    @property
    def precision(self) -> float:
        return self.correct / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        return self.correct / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        return 2 * self.correct / (self.predicted + self.gold) if self.predicted + self.gold else 0.0

    def to_dict(self) -> dict[str, float]:
        """The counts and the rates, for JSON."""
        return {**asdict(self), "precision": self.precision, "recall": self.recall, "f1": self.f1}


@dataclass(frozen=True)
class TaskScores:
    """The metrics that both tasks have, over the rows that are annotated for the task."""

    rows: int
    per_label: dict[str, Score]  # all gold or predicted labels; those missing in train count as one

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the labels; 0 without labels."""
        return float(np.mean([score.f1 for score in self.per_label.values()] or [0.0]))


@dataclass(frozen=True)
class ClassScores(TaskScores):
    """Task A. The labels are classes."""

    accuracy: float


@dataclass(frozen=True)
class EntityScores(TaskScores):
    """Task B. The labels are types. An entity is correct if both ends and the type are (Tjong Kim Sang & De
    Meulder 2003)."""

    words: int
    word_accuracy: float
    micro: Score


@dataclass(frozen=True)
class Scores:
    """The metrics of both tasks. A task is None if no row is annotated for it. exact_match is the share of
    the rows annotated for every scored task whose class and entities are all correct."""

    task_a: ClassScores | None
    task_b: EntityScores | None
    exact_match: float | None
    loss: float | None = None  # see evaluation.loss; None where it was not asked for

    def headline(self) -> dict[str, float | None]:
        """The metrics that metrics.jsonl holds."""
        return {
            "accuracy": self.task_a.accuracy if self.task_a else None,
            "macro_f1": self.task_a.macro_f1 if self.task_a else None,
            "entity_f1": self.task_b.micro.f1 if self.task_b else None,
            "exact_match": self.exact_match,
            **({} if self.loss is None else {"loss": self.loss}),
        }

    def to_dict(self) -> dict:
        """All metrics, for JSON."""
        row: dict = dict(self.headline())
        if (a := self.task_a) is not None:
            row["task_a"] = {"rows": a.rows, "accuracy": a.accuracy, "macro_f1": a.macro_f1}
            row["task_a"]["per_class"] = {name: score.to_dict() for name, score in a.per_label.items()}
        if (b := self.task_b) is not None:
            row["task_b"] = {"rows": b.rows, "words": b.words, "word_accuracy": b.word_accuracy}
            row["task_b"] |= {**b.micro.to_dict(), "macro_f1": b.macro_f1}
            row["task_b"]["per_type"] = {name: score.to_dict() for name, score in b.per_label.items()}
        return row


class Matches(NamedTuple):
    """P predicted entities against the gold ones, in the rows whose entities are annotated."""

    starts: np.ndarray  # (P,) first word in the corpus, ascending
    ends: np.ndarray  # (P,) word after the last one
    types: np.ndarray  # (P,) type ids
    correct: np.ndarray  # (P,) whether it is a gold entity: both ends and the type
    row_correct: np.ndarray  # (N,) whether exactly the gold entities of the row were predicted


def score(
    corpus: EncodedCorpus, labels: LabelSpace, classes: np.ndarray | None, tags: np.ndarray | None
) -> Scores:
    """Score predicted class ids (N,) and tag ids (W,) against a corpus. None leaves a task out.

    A word without a prediction has tag −1: it counts as wrong, and the entities it belongs to as missed."""
    has_class = corpus.row_classes != UNLABELLED
    row_correct, complete = np.ones(len(corpus), bool), np.ones(len(corpus), bool)
    scores_a = scores_b = None
    if tags is not None and corpus.row_tagged.any():
        scores_b, row_correct = _score_entities(corpus, labels, tags)
        complete &= corpus.row_tagged
    if classes is not None and has_class.any():
        gold, predicted = corpus.row_classes[has_class], classes[has_class]
        correct = gold == predicted
        per_label = _score_per_label(gold[correct], predicted, gold, labels.classes)
        scores_a = ClassScores(len(gold), per_label, float(correct.mean()))
        row_correct = row_correct & (classes == corpus.row_classes)
        complete &= has_class
    exact = float(row_correct[complete].mean()) if (scores_a or scores_b) and complete.any() else None
    return Scores(scores_a, scores_b, exact)


def _score_entities(
    corpus: EncodedCorpus, labels: LabelSpace, tags: np.ndarray
) -> tuple[EntityScores, np.ndarray]:
    """The scores, and whether all entities of each row (N,) are correct."""
    matches = match_entities(corpus, labels, tags)
    annotated = np.repeat(corpus.row_tagged, np.diff(corpus.word_rows))
    correct_types = matches.types[matches.correct]
    per_label = _score_per_label(correct_types, matches.types, corpus.spans[2], labels.types)
    micro = Score(len(correct_types), len(matches.starts), corpus.spans.shape[1])
    gold_tags, words = corpus.word_tags[annotated], int(annotated.sum())
    accuracy = float((gold_tags == tags[annotated]).mean()) if words else 0.0
    scores = EntityScores(int(corpus.row_tagged.sum()), per_label, words, accuracy, micro)
    return scores, matches.row_correct


def match_entities(corpus: EncodedCorpus, labels: LabelSpace, tags: np.ndarray) -> Matches:
    """Compare the entities in predicted tag ids (W,) with those of the corpus."""
    starts, ends, types = labels.find_spans(tags, corpus.word_rows)
    annotated = corpus.row_tagged[np.searchsorted(corpus.word_rows, starts, side="right") - 1]
    starts, ends, types = starts[annotated], ends[annotated], types[annotated]
    gold_starts, gold_ends, gold_types = corpus.spans

    # Entities do not overlap: the word at which one starts identifies it. 0 stands for no entity, and −1 for
    # one that begins or ends inside a word: no prediction equals it.
    gold_at, predicted_at = np.zeros((2, len(tags)), np.int64)
    step = 1 + max(len(labels.types), 1)
    gold_at[gold_starts] = np.where(corpus.span_exact, gold_ends * step + gold_types, -1)
    predicted_at[starts] = ends * step + types
    correct = (gold_at == predicted_at) & (predicted_at > 0)
    errors_before = np.concatenate([[0], np.cumsum(gold_at != predicted_at)])
    row_correct = errors_before[corpus.word_rows[1:]] == errors_before[corpus.word_rows[:-1]]
    return Matches(starts, ends, types, correct[starts], row_correct)


def _score_per_label(
    correct: np.ndarray, predicted: np.ndarray, gold: np.ndarray, names: tuple[str, ...]
) -> dict[str, Score]:
    """Ids → a Score for each gold or predicted label. The id after the last one stands for unknown labels."""
    size = len(names) + 1
    counts = np.stack([np.bincount(ids, minlength=size) for ids in (correct, predicted, gold)], 1)
    all_names = (*names, UNKNOWN_LABEL)
    return {all_names[i]: Score(*map(int, counts[i])) for i in np.flatnonzero(counts.sum(1))}


def scores_table(scores: Scores) -> str:
    """The metrics as text: for each task one line and a table of its labels."""
    lines = []
    if (a := scores.task_a) is not None:
        lines += [f"Task A, {a.rows:,} sentences: accuracy {a.accuracy:.4f}, macro-F1 {a.macro_f1:.4f}"]
        lines += _label_rows(a.per_label, "class")
    if (b := scores.task_b) is not None:
        lines += [
            f"Task B, {b.rows:,} sentences: entity F1 {b.micro.f1:.4f} (precision {b.micro.precision:.4f}, "
            f"recall {b.micro.recall:.4f}), macro-F1 {b.macro_f1:.4f}, word accuracy {b.word_accuracy:.4f}"
        ]
        lines += _label_rows(b.per_label, "type")
    if scores.exact_match is not None:
        lines += [f"Exact match (class and all entities): {scores.exact_match:.4f}"]
    return "\n".join(lines)


def _label_rows(per_label: dict[str, Score], title: str) -> list[str]:
    width = max(len(title), *map(len, per_label)) if per_label else len(title)
    lines = [f"  {title:<{width}}  precision  recall      F1    gold"]
    for name, s in per_label.items():
        lines.append(f"  {name:<{width}}  {s.precision:9.4f}  {s.recall:6.4f}  {s.f1:6.4f}  {s.gold:6,}")
    return lines
