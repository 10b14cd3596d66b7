"""Confident learning against its equations written out item by item, and what is made of wrong words."""

from types import SimpleNamespace

import numpy as np
import pytest

from multitask.data.labels import LabelSpace, Span
from multitask.labelling.confident import (
    by_confident_joint,
    by_noise_rate,
    joint_distribution,
    label_quality,
    thresholds,
)
from multitask.labelling.entity_issues import entity_issues, word_types
from multitask.labelling.near_duplicates import near_duplicates


@pytest.fixture
def noisy() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities (400, 3), given labels, and which of them are wrong."""
    draw = np.random.default_rng(5)
    true = draw.integers(0, 3, 400)
    probabilities = draw.dirichlet([0.5] * 3, 400)
    probabilities[np.arange(400), true] += 1.2
    probabilities /= probabilities.sum(1, keepdims=True)
    wrong = draw.random(400) < 0.1
    return probabilities, np.where(wrong, (true + draw.integers(1, 3, 400)) % 3, true), wrong


def test_the_rules_are_those_of_the_paper(noisy):
    p, given, _ = noisy
    n, K = p.shape
    t = [np.mean([p[i, j] for i in range(n) if given[i] == j]) for j in range(K)]  # equation 2
    assert thresholds(p, given) == pytest.approx(t)
    counted = [max((j for j in range(K) if row[j] >= t[j]), key=row.__getitem__, default=None) for row in p]
    C = np.zeros((K, K))  # equation 1
    for own, label in zip(given, counted):
        if label is not None:
            C[own, label] += 1
    shares = [np.mean(given == i) for i in range(K)]
    Q = np.array([C[i] / C[i].sum() * shares[i] for i in range(K)])  # equation 3
    assert joint_distribution(p, given) == pytest.approx(Q)
    joint = [label not in (None, own) and row[label] > row[own] for own, label, row in zip(given, counted, p)]
    assert by_confident_joint(p, given).tolist() == joint
    pruned = set()  # method 4
    for i in range(K):
        for j in {*range(K)} - {i}:
            items = sorted(np.flatnonzero(given == i), key=lambda item: p[item, i] - p[item, j])
            pruned |= {item for item in items[: round(n * Q[i, j])] if p[item, j] > p[item, i]}
    assert {*np.flatnonzero(by_noise_rate(p, given))} == pruned
    assert len(pruned) > 0 and sum(joint) > 0 and pruned != {*np.flatnonzero(joint)}


def test_wrong_labels_are_found_and_have_the_lowest_quality(noisy):
    p, given, wrong = noisy
    for rule in (by_confident_joint, by_noise_rate):
        found = rule(p, given)
        assert (found & wrong).sum() / found.sum() > 0.8 and (found & wrong).sum() / wrong.sum() >= 0.5
    quality = label_quality(p, given)
    assert quality == pytest.approx(
        [(row[own] - np.delete(row, own).max() + 1) / 2 for own, row in zip(given, p)]
    )
    assert np.median(quality[wrong]) < 0.35 < 0.65 < np.median(quality[~wrong])


def test_labels_that_nobody_gave_and_a_single_label():
    p = np.array([[0.1, 0.2, 0.7], [0.2, 0.1, 0.7], [0.3, 0.6, 0.1]])
    given = np.array([0, 0, 1])  # nobody gave label 2: it has no threshold
    assert not by_confident_joint(p, given).any() and not by_noise_rate(p, given).any()
    assert joint_distribution(p, given) == pytest.approx(np.diag([2 / 3, 1 / 3, 0]))
    one = np.ones((2, 1))
    assert not by_confident_joint(one, np.zeros(2, int)).any() and label_quality(
        one, np.zeros(2, int)
    ).tolist() == [1, 1]


WORDS = 12  # words of two rows: 8 and 4


def issues_of(given: list[Span], predicted: list[Span], wrong=range(WORDS)) -> list:
    """The issues of two rows, as (row, kind, given, suggested), and their qualities."""
    labels = LabelSpace((), ("LOC", "PER"), "BIO")

    def ids(spans):
        return np.array([[s.start, s.end, labels.type_ids[s.label]] for s in spans], int).reshape(-1, 3).T

    corpus = SimpleNamespace(word_rows=np.array([0, 8, WORDS]), spans=ids(given))
    tags = labels.tag_spans(*ids(predicted), WORDS)
    marked = np.isin(np.arange(WORDS), [*wrong])
    quality = np.arange(WORDS) / 100
    return [
        (one.row, one.kind, one.given, one.suggested, one.quality)
        for one in entity_issues(corpus, labels, tags, marked, quality)
    ]


@pytest.mark.parametrize(
    ("given", "predicted", "expected"),
    [
        ([], [Span(1, 3, "LOC")], (0, "missing", [], [(1, 3, 0)], 0.01)),
        ([Span(9, 10, "PER")], [], (1, "spurious", [(9, 10, 1)], [], 0.09)),
        ([Span(2, 4, "PER")], [Span(2, 4, "LOC")], (0, "type", [(2, 4, 1)], [(2, 4, 0)], 0.02)),
        ([Span(2, 4, "PER")], [Span(2, 5, "PER")], (0, "boundary", [(2, 4, 1)], [(2, 5, 1)], 0.04)),
        (
            [Span(0, 2, "PER"), Span(3, 4, "LOC")],
            [Span(1, 4, "PER")],
            (0, "boundary", [(0, 2, 1), (3, 4, 0)], [(1, 4, 1)], 0.0),
        ),
    ],
)
def test_each_kind_of_wrong_entity(given, predicted, expected):
    assert issues_of(given, predicted) == [expected]
    changed = range(WORDS)
    assert issues_of(given, given) == []
    assert issues_of(given, predicted, [word for word in changed if word / 100 < expected[-1]]) == []
    assert issues_of(given, predicted, [round(expected[-1] * 100)]) == [expected]  # one wrong word is enough


def test_entities_that_only_touch_are_apart():
    found = issues_of([Span(0, 2, "PER")], [Span(2, 4, "LOC")])
    assert [issue[1:4] for issue in found] == [
        ("spurious", [(0, 2, 1)], []),
        ("missing", [], [(2, 4, 0)]),
    ]


def test_types_of_words():
    assert word_types(np.array([[1, 4], [3, 5], [0, 2]]), 6).tolist() == [0, 1, 1, 0, 3, 0]
    assert word_types(np.zeros((3, 0), int), 2).tolist() == [0, 0]


def test_near_duplicates_are_those_of_all_pairs(monkeypatch):
    from multitask.labelling import near_duplicates as module

    draw = np.random.default_rng(0)
    embeddings = draw.normal(size=(30, 4))
    files = np.repeat([0, 1, 2], [12, 10, 8])
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    expected = {}
    for row in range(12, 30):
        pairs = [(float(unit[row] @ unit[other]), other) for other in range(30) if files[other] < files[row]]
        cosine, other = max(pairs)
        if cosine >= 0.8:
            expected[row] = (other, pytest.approx(cosine, abs=1e-5))
    for block in (1 << 24, 20):
        monkeypatch.setattr(module, "_BLOCK", block)
        found = near_duplicates(embeddings, files, 0.8)
        assert {pair.row: (pair.earlier, pair.cosine) for pair in found} == expected
        cosines = [pair.cosine for pair in found]
        assert cosines == sorted(cosines, reverse=True) and 2 < len(found) < 18
    assert near_duplicates(embeddings, np.zeros(30, int)) == []
