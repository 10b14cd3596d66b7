"""Selective prediction: risk by coverage, the thresholds that dev sets, and what evaluation says of them."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import task_5
from multitask import Predictor
from multitask.encoders.thresholds import read_thresholds
from multitask.evaluation.evaluate import evaluate_file
from multitask.evaluation.selective import LEVELS, area_under_risk, fit_steps, risk_coverage, thinned

graded = st.lists(
    st.tuples(st.sampled_from([0.2, 0.4, 0.5, 0.8, 0.9]), st.booleans()), min_size=1, max_size=40
)


def columns(pairs):
    confidence, correct = zip(*pairs)
    return np.array(confidence), np.array(correct)


@given(graded)
def test_risk_at_a_coverage_is_the_share_of_wrong_answers_from_its_threshold_on(pairs):
    coverage, risk = risk_coverage(*columns(pairs))
    thresholds = sorted({confidence for confidence, _ in pairs}, reverse=True)
    assert len(coverage) == len(thresholds)
    for threshold, share, wrong in zip(thresholds, coverage, risk):
        kept = [correct for confidence, correct in pairs if confidence >= threshold]
        assert share == pytest.approx(len(kept) / len(pairs))
        assert wrong == pytest.approx(kept.count(False) / len(kept))


def test_the_area_under_risk_is_its_mean_over_all_coverages():
    confidence = np.array([0.9, 0.8, 0.7, 0.6])
    assert area_under_risk(confidence, np.array([1, 1, 1, 0], bool)) == pytest.approx(1 / 16)
    wrong_first = area_under_risk(confidence, np.array([0, 1, 1, 1], bool))
    assert wrong_first == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    one_confidence = area_under_risk(np.full(4, 0.5), np.array([0, 1, 1, 1], bool))
    assert one_confidence == pytest.approx(1 / 4)


def test_a_thinned_curve_keeps_its_ends():
    coverage, risk = thinned(np.linspace(0, 1, 10_000), np.linspace(0.5, 0, 10_000))
    assert (
        len(coverage) <= 500 and coverage[[0, -1]].tolist() == [0, 1] and risk[[0, -1]].tolist() == [0.5, 0]
    )


@given(graded, st.floats(0.01, 0.99))
def test_the_lowest_threshold_that_gives_a_share_is_chosen(pairs, wanted):
    """Against the slow way: every threshold, and one more wrong answer than dev has."""
    confidence, correct = columns(pairs)
    fitted = fit_steps(confidence, correct)
    reached = {}
    for threshold in sorted(set(confidence.tolist())):
        kept = correct[confidence >= threshold]
        reached[threshold] = kept.sum() / (len(kept) + 1)
    step = fitted.lowest_for(wanted)
    sufficient = [threshold for threshold, share in reached.items() if share >= wanted]
    if step is None:  # shares are told apart by a thousandth
        assert not any(reached[threshold] >= wanted + 0.001 for threshold in sufficient)
        return
    kept = confidence >= step.threshold
    assert kept.mean() == step.share_kept
    assert correct[kept].sum() / (kept.sum() + 1) == step.share_correct >= wanted
    lower = [threshold for threshold in sufficient if threshold < confidence[kept].min()]
    assert not any(reached[threshold] >= wanted + 0.001 for threshold in lower)


@given(graded)
def test_thresholds_begin_with_everything_and_rise(pairs):
    fitted = fit_steps(*columns(pairs))
    assert fitted.predictions == len(pairs)
    assert fitted.steps[0][0::2] == (0.0, 1.0)
    for lower, higher in zip(fitted.steps, fitted.steps[1:]):
        assert lower.threshold < higher.threshold and lower.share_correct < higher.share_correct
        assert lower.share_kept > higher.share_kept


def test_evaluation_tells_what_the_thresholds_of_dev_do(shell, learned):
    evaluated = evaluate_file(Predictor.from_pretrained(learned), learned, "dev.jsonl")
    row = json.loads(shell(task_5, "evaluate", "dev.jsonl", "--model", learned, "--json").out)
    thresholds = read_thresholds(learned)
    for name, task in (("classes", "task_a"), ("found entities", "task_b")):
        (confidence, correct), of_levels = evaluated.selective()[name]
        assert row["selective"][name]["aurc"] == pytest.approx(area_under_risk(confidence, correct))
        assert [level["wanted"] for level in row["selective"][name]["levels"]] == list(LEVELS)
        fitted = getattr(thresholds, task)
        assert fitted == fit_steps(confidence, correct)  # dev is this file
        for level, said in zip(of_levels, row["selective"][name]["levels"]):
            assert level._asdict() == said
            step = fitted.lowest_for(level.wanted)
            assert level.threshold == (step and step.threshold)
            if step:
                assert level.share_kept == pytest.approx(step.share_kept)
                kept = confidence >= level.threshold
                assert level.share_correct == pytest.approx(correct[kept].mean())
    assert "not reached on dev" in shell(task_5, "evaluate", "dev.jsonl", "--model", learned).out


def test_evaluation_of_a_model_without_thresholds_has_no_levels(shell, trained):
    path = trained.parent.parent / "rows.jsonl"
    row = json.loads(shell(task_5, "evaluate", path, "--model", trained, "--json").out)
    assert row["selective"]["classes"]["levels"] == [] and 0 <= row["selective"]["classes"]["aurc"] <= 1
    assert "that dev sets" not in shell(task_5, "evaluate", path, "--model", trained).out
