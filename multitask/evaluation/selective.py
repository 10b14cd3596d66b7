"""Selective prediction: how right a model is where it answers only if it is confident.

Coverage is the share of predictions that are kept, from the most confident one down; risk is the share of
wrong ones among them (El-Yaniv & Wiener 2010; Geifman & El-Yaniv 2017)."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import TASKS, UNLABELLED
from multitask.encoders.thresholds import Step, TaskThresholds, Thresholds
from multitask.evaluation.corpus_predictions import CorpusPredictions, predict_with_confidence
from multitask.inference.predictor import Predictor

LEVELS = (0.9, 0.95, 0.98, 0.99)  # wanted shares of correct predictions, for tables
_STEP = 1000  # shares of correct predictions are told apart by 1 / this
_POINTS = 500  # of a curve in a picture


class Answers(NamedTuple):
    """The confidence (n,) of a task's predictions, calibrated, and whether they are correct (n,)."""

    confidence: np.ndarray
    correct: np.ndarray


class Level(NamedTuple):
    """What the threshold that dev sets for a wanted share of correct predictions does on other rows."""

    wanted: float
    threshold: float | None  # None: no threshold reaches it on dev
    share_kept: float | None  # here
    share_correct: float | None  # of the kept predictions here; None: nothing is kept


def answers(predictions: CorpusPredictions, corpus: EncodedCorpus) -> dict[str, Answers]:
    """Task → its predictions in the rows that are annotated for it; without a task that has none."""
    by_task = {}
    if predictions.classes is not None and predictions.class_probabilities is not None:
        annotated = corpus.row_classes != UNLABELLED
        correct = (predictions.classes == corpus.row_classes)[annotated]
        by_task["task_a"] = Answers(predictions.class_probabilities[1][annotated], correct)
    if predictions.matches is not None and predictions.entity_scores is not None:
        by_task["task_b"] = Answers(predictions.entity_scores[1], predictions.matches.correct)
    return {task: found for task, found in by_task.items() if len(found.correct)}


def fit_thresholds(
    predictor: Predictor, corpus: EncodedCorpus, tasks: Collection[str] = TASKS
) -> Thresholds | None:
    """The thresholds of a model on annotated rows that it was not trained on; None if there are none.

    Several processes share the rows and get the same thresholds."""
    found = answers(predict_with_confidence(predictor, corpus, tasks=tasks), corpus)
    return Thresholds(**{task: fit_steps(*of_task) for task, of_task in found.items()}) if found else None


def risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidences (n,) and `correct` (n,) bool → coverage and risk (k,) at each different confidence, from
    the highest down. Equally confident predictions are kept together."""
    order, last = _by_confidence(confidence)
    wrong = np.cumsum(~correct[order])[last]
    return (last + 1) / len(confidence), wrong / (last + 1)


def area_under_risk(confidence: np.ndarray, correct: np.ndarray) -> float:
    """The mean risk over all coverages, 0 at best: AURC (Geifman, Uziel & El-Yaniv 2019, §2)."""
    coverage, risk = risk_coverage(confidence, correct)
    return float((risk * np.diff(coverage, prepend=0)).sum())


def thinned(coverage: np.ndarray, risk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most some 500 points of a curve, for a picture."""
    kept = np.unique(np.linspace(0, len(coverage) - 1, min(len(coverage), _POINTS)).astype(int))
    return coverage[kept], risk[kept]


def levels(of_task: Answers, fitted: TaskThresholds | None) -> list[Level]:
    """What the thresholds of dev do on these predictions, for each of LEVELS."""
    rows = []
    for wanted in LEVELS if fitted else ():
        assert fitted is not None
        if step := fitted.lowest_for(wanted):
            kept = of_task.confidence >= step.threshold
            correct = float(of_task.correct[kept].mean()) if kept.any() else None
            rows.append(Level(wanted, step.threshold, float(kept.mean()), correct))
        else:
            rows.append(Level(wanted, None, None, None))
    return rows


def fit_steps(confidence: np.ndarray, correct: np.ndarray) -> TaskThresholds:
    """The steps from "everything" to the highest share of correct predictions.

    That share is correct / (kept + 1), as if one more prediction had been wrong: without it, the most
    confident row alone would promise 100 % (as in conformal risk control, Angelopoulos et al. 2024, §2)."""
    order, last = _by_confidence(confidence)
    ranked = np.asarray(confidence, np.float64)[order]
    kept = last + 1
    shares = np.cumsum(correct[order])[last] / (kept + 1)
    steps: list[Step] = []
    for place in reversed(range(len(kept))):  # from the lowest threshold up
        everything = kept[place] == len(ranked)
        if everything or int(shares[place] * _STEP) > int(steps[-1].share_correct * _STEP):
            # half-way to the next lower confidence: another order of summation must change nothing
            threshold = 0.0 if everything else float(ranked[kept[place] - 1] + ranked[kept[place]]) / 2
            steps.append(Step(threshold, float(shares[place]), float(kept[place] / len(ranked))))
    return TaskThresholds(len(ranked), tuple(steps))


def _by_confidence(confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order of falling confidence (n,), and where in it each different confidence is last (k,)."""
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    return order, np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
