"""Model folders that are not sure of some predictions."""

import shutil
from pathlib import Path

from multitask import Predictor
from multitask.encoders.thresholds import FILE, Step, TaskThresholds, Thresholds

TEXTS = ["anna won in paris", "", "the vote", "Paris, anna and the match!", "chip", "won won won"]
UNSURE = 2  # texts whose class is below the threshold of `unsure_copy`
SURE = 0.8  # share of right predictions from the thresholds on, as dev is said to have found


def put_thresholds(folder, task_a: float, task_b: float) -> None:
    """Two thresholds for each task: one that keeps everything, and the given one."""
    tasks = [TaskThresholds(20, (Step(0, 0.5, 1), Step(lowest, SURE, 0.5))) for lowest in (task_a, task_b)]
    Path(folder, FILE).write_bytes(Thresholds(*tasks).to_json())


def unsure_copy(source: Path, target: Path) -> Path:
    """A copy of a model folder whose thresholds are in the middle of its predictions for TEXTS."""
    shutil.copytree(source, target)
    predictions = [p for p in Predictor.from_pretrained(target, "cpu").predict(TEXTS) if p.label]
    probabilities = sorted(max(p.probabilities.values()) for p in predictions)
    scores = sorted(entity.score for p in predictions for entity in p.entities)
    middle = len(scores) // 2
    put_thresholds(
        target, sum(probabilities[UNSURE - 1 : UNSURE + 1]) / 2, sum(scores[middle - 1 : middle + 1]) / 2
    )
    return target
