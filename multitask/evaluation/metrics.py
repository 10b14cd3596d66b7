"""Scores of both tasks, from arrays: a row without an annotation counts for no score of that task."""

from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import UNLABELLED, LabelSpace


@dataclass(frozen=True)
class Score:
    """Precision, recall and F1 from counts; 0 where there was nothing to find and nothing was said."""

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


@dataclass(frozen=True)
class ClassScores:
    """Task A over the rows that have a class. macro_f1 is the mean over all classes in gold or prediction;
    those that train lacks are one class."""

    rows: int
    accuracy: float
    per_class: dict[str, Score]

    @property
    def macro_f1(self) -> float:
        return float(np.mean([score.f1 for score in self.per_class.values()]))


@dataclass(frozen=True)
class EntityScores:
    """Task B over the rows with annotated entities. An entity is right if both its ends and its type are
    (Tjong Kim Sang & De Meulder 2003). macro_f1 is the mean over all types in gold or prediction."""

    rows: int
    words: int
    word_accuracy: float
    micro: Score
    per_type: dict[str, Score]

    @property
    def macro_f1(self) -> float:
        return float(np.mean([score.f1 for score in self.per_type.values()])) if self.per_type else 0.0


@dataclass(frozen=True)
class Scores:
    """None stands for a task of which no row is annotated. exact_match counts rows annotated for all tasks
    that are scored, and is the share of those whose class and entities are all right."""

    task_a: ClassScores | None
    task_b: EntityScores | None
    exact_match: float | None

    def headline(self) -> dict[str, float | None]:
        """The figures that metrics.jsonl holds."""
        return {
            "accuracy": self.task_a.accuracy if self.task_a else None,
            "macro_f1": self.task_a.macro_f1 if self.task_a else None,
            "entity_f1": self.task_b.micro.f1 if self.task_b else None,
            "exact_match": self.exact_match,
        }

    def to_dict(self) -> dict:
        """All figures, as JSON has them."""

        def per_name(scores: dict[str, Score]) -> dict:
            return {name: {**asdict(s), **_rates(s)} for name, s in scores.items()}

        row: dict = dict(self.headline())
        if (a := self.task_a) is not None:
            row["task_a"] = {"rows": a.rows, "accuracy": a.accuracy, "macro_f1": a.macro_f1}
            row["task_a"]["per_class"] = per_name(a.per_class)
        if (b := self.task_b) is not None:
            row["task_b"] = {"rows": b.rows, "words": b.words, "word_accuracy": b.word_accuracy}
            row["task_b"] |= {**asdict(b.micro), **_rates(b.micro), "macro_f1": b.macro_f1}
            row["task_b"]["per_type"] = per_name(b.per_type)
        return row

    def mean(self) -> float | None:
        """What the best model is chosen by: the mean of accuracy and entity F1, of those that there are."""
        parts = [
            part for part in (self.headline()["accuracy"], self.headline()["entity_f1"]) if part is not None
        ]
        return float(np.mean(parts)) if parts else None


def score(
    corpus: EncodedCorpus,
    labels: LabelSpace,
    classes: np.ndarray | None,
    tags: np.ndarray | None,
) -> Scores:
    """Predicted class ids (N,) and tag ids (W,) against the corpus. None leaves a task out.

    A word without a prediction has tag −1: it is wrong, and the entities that it is part of are missed."""
    has_class = corpus.row_classes != UNLABELLED
    scores_a = (
        _score_classes(corpus.row_classes[has_class], classes[has_class], labels)
        if (classes is not None and has_class.any())
        else None
    )
    scores_b, row_right = None, np.ones(len(corpus), bool)
    if tags is not None and corpus.row_tagged.any():
        scores_b, row_right = _score_entities(corpus, labels, tags)
    complete = np.ones(len(corpus), bool)
    if scores_a:
        complete &= has_class
        row_right &= classes == corpus.row_classes
    if scores_b:
        complete &= corpus.row_tagged
    exact = float(row_right[complete].mean()) if (scores_a or scores_b) and complete.any() else None
    return Scores(scores_a, scores_b, exact)


def _score_classes(gold: np.ndarray, predicted: np.ndarray, labels: LabelSpace) -> ClassScores:
    correct = gold == predicted
    return ClassScores(
        len(gold), float(correct.mean()), _tally(gold[correct], predicted, gold, labels.classes)
    )


def _score_entities(
    corpus: EncodedCorpus, labels: LabelSpace, tags: np.ndarray
) -> tuple[EntityScores, np.ndarray]:
    """The scores, and for each row (N,) whether all of its entities, and no others, were found."""
    m = match_entities(corpus, labels, tags)
    tagged = np.repeat(corpus.row_tagged, np.diff(corpus.word_rows))
    per_type = _tally(m.types[m.right], m.types, corpus.spans[2], labels.types)
    micro = Score(int(m.right.sum()), len(m.starts), len(m.found))
    gold_tags, words = corpus.word_tags[tagged], int(tagged.sum())
    accuracy = float((gold_tags == tags[tagged]).mean()) if words else 0.0
    return EntityScores(int(corpus.row_tagged.sum()), words, accuracy, micro, per_type), m.row_right


class Matches(NamedTuple):
    """Entities that were said (F,) of the rows whose entities are annotated, and which of both are right."""

    starts: np.ndarray  # (F,) in words of the corpus, ascending
    ends: np.ndarray  # (F,)
    types: np.ndarray  # (F,) type ids
    right: np.ndarray  # (F,) whether each is an annotated one: both ends and the type
    found: np.ndarray  # (E,) whether each annotated one was said
    row_right: np.ndarray  # (N,) whether all of a row's entities were said, and no others


def match_entities(corpus: EncodedCorpus, labels: LabelSpace, tags: np.ndarray) -> Matches:
    """Tag ids (W,) against a corpus."""
    starts, ends, types = labels.find_spans(tags, corpus.word_rows)
    kept = corpus.row_tagged[np.searchsorted(corpus.word_rows, starts, side="right") - 1]
    starts, ends, types = starts[kept], ends[kept], types[kept]
    gold_starts, gold_ends, gold_types = corpus.spans

    # entities do not overlap, so a start is an entity's name; 0 stands for no entity there
    gold_at, found_at = np.zeros((2, len(tags)), np.int64)
    span = 1 + max(len(labels.types), 1)
    gold_at[gold_starts] = gold_ends * span + gold_types
    found_at[starts] = ends * span + types
    right = (gold_at == found_at) & (found_at > 0)
    wrong_before = np.concatenate([[0], np.cumsum(gold_at != found_at)])
    row_right = wrong_before[corpus.word_rows[1:]] == wrong_before[corpus.word_rows[:-1]]
    return Matches(starts, ends, types, right[starts], right[gold_starts], row_right)


def _tally(
    correct: np.ndarray, predicted: np.ndarray, gold: np.ndarray, names: tuple[str, ...]
) -> dict[str, Score]:
    """Ids → a Score for each name in gold or prediction. The id past the last one is for unknown names."""
    size = len(names) + 1
    counts = np.stack([np.bincount(ids, minlength=size) for ids in (correct, predicted, gold)], 1)
    named = (*names, "(not in train)")
    return {named[i]: Score(*map(int, counts[i])) for i in np.flatnonzero(counts.sum(1))}


def _rates(s: Score) -> dict[str, float]:
    return {"precision": s.precision, "recall": s.recall, "f1": s.f1}


def scores_table(scores: Scores) -> str:
    """The scores for a person to read: a line each, then a table a task."""
    lines = []
    if scores.task_a:
        a = scores.task_a
        lines += [f"Task A, {a.rows:,} sentences: accuracy {a.accuracy:.4f}, macro-F1 {a.macro_f1:.4f}"]
        lines += _rows(a.per_class, "class")
    if scores.task_b:
        b = scores.task_b
        lines += [
            f"Task B, {b.rows:,} sentences: entity F1 {b.micro.f1:.4f} (precision {b.micro.precision:.4f}, "
            f"recall {b.micro.recall:.4f}), macro-F1 {b.macro_f1:.4f}, word accuracy {b.word_accuracy:.4f}"
        ]
        lines += _rows(b.per_type, "type")
    if scores.exact_match is not None:
        lines += [f"Whole sentences right: {scores.exact_match:.4f}"]
    return "\n".join(lines)


def _rows(per_name: dict[str, Score], title: str) -> list[str]:
    width = max(len(title), *map(len, per_name)) if per_name else len(title)
    lines = [f"  {title:<{width}}  precision  recall      F1    gold"]
    for name, s in per_name.items():
        lines.append(f"  {name:<{width}}  {s.precision:9.4f}  {s.recall:6.4f}  {s.f1:6.4f}  {s.gold:6,}")
    return lines
