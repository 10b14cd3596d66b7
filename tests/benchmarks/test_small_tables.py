"""The tables of nearest_sentences.py and speedups.py, from figures that can be checked by hand."""

import numpy as np
import pytest

from benchmarks import nearest_sentences, speedups


def test_disagreement_is_counted_apart_for_right_and_wrong_predictions():
    nearest = np.array([list("aaabb"), list("bbbaa"), list("bbbbb"), list("aabbb")])
    predicted, classes = np.array(list("aaba")), np.array(list("aabb"))
    figures = nearest_sentences.compare(nearest, predicted, classes)
    assert figures == {
        "sentences": 4,
        "wrong": 1,
        "accuracy": 0.75,
        "nearest": pytest.approx(2 / 4),  # rows 1 and 3: the nearest sentence has the annotated class
        "chance": 0.5,
        "disagree_right": pytest.approx(1 / 3),  # row 2
        "disagree_wrong": 1.0,  # row 4
    }
    assert "| run_1 |              4 |    0.750 |" in nearest_sentences.table({"runs/run_1": figures})


def test_a_speedup_is_the_median_of_ratios_within_rounds():
    rounds = dict.fromkeys(speedups.VARIANTS, [1.0, 10.0, 2.0])
    rounds["both"] = [2.0, 15.0, 1.0]  # ratios 2, 1.5, 0.5; the ratio of the medians would be 1
    table = speedups.table({"corpus/": {"rounds": rounds}})
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert ["both", "2.00", "1.50"] in cells and ["neither", "2.00", "1.00"] in cells
