"""Entropies of classes and tags, against formulas written out for one text at a time."""

import numpy as np
import pytest

from multitask.common.errors import InputError
from multitask.data.labels import LabelSpace
from multitask.inference.decoding import softmax
from multitask.labelling.diversity import farthest_first, nearest_distances, unit_vectors
from multitask.labelling.uncertainty import choose_order, class_uncertainty, entropy, tag_uncertainty


def bits(probabilities) -> float:
    """The entropy of one distribution, in units of the largest one."""
    return -sum(p * np.log(p) for p in probabilities if p > 0) / np.log(len(probabilities))


def test_entropy_is_a_share_of_the_largest():
    given = np.array([[0.25] * 4, [1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.7, 0.1, 0.1, 0.1]])
    assert entropy(given) == pytest.approx([1.0, 0.0, 0.5, bits(given[3])], abs=1e-12)
    assert entropy(np.ones((2, 1))) == pytest.approx([0.0, 0.0])  # a single class


def test_windows_that_disagree_make_a_text_uncertain():
    sure = np.array([[9.0, 0, 0], [0, 9.0, 0], [9.0, 0, 0], [9.0, 0, 0], [1.0, 2.0, 0.5]], np.float32)
    windows = np.array([0, 2, 4, 5])  # the first text's windows disagree, the second one's agree
    found = class_uncertainty(sure, windows, 1.5)
    p = softmax(sure.astype(np.float64) / 1.5)
    assert found == pytest.approx([bits((p[0] + p[1]) / 2), bits(p[2]), bits(p[4])], abs=1e-6)
    mean = (bits(p[0]) + bits(p[1])) / 2
    assert found[0] > mean + 0.5  # the divergence of the windows is the most of it


def test_tag_uncertainty_is_of_the_words_of_each_text():
    logits = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32) * 3
    words = np.array([0, 1, 4, 7])
    each = [bits(p) for p in softmax(logits.astype(np.float64) / 0.5)]
    expected = [max(each[first:last]) for first, last in zip(words, words[1:])]
    assert tag_uncertainty(logits, words, 0.5) == pytest.approx(expected, abs=1e-6)


def test_an_order_needs_its_task():
    both, classes, types = (
        LabelSpace(["a"], ["X"], "IO"),
        LabelSpace(["a"], [], "IO"),
        LabelSpace([], ["X"], "IO"),
    )
    assert [choose_order(None, labels) for labels in (both, classes, types)] == ["tags", "class", "tags"]
    for order, labels, missing in (("tags", classes, "types of entities"), ("class", types, "classes")):
        assert choose_order(order, both) == order
        for asked in (order, "both"):
            with pytest.raises(InputError, match=f"--by {asked}: the model has no {missing}"):
                choose_order(asked, labels)


def test_farthest_first_is_greedy_k_center():
    random = np.random.default_rng(1)
    vectors = unit_vectors(random.normal(size=(40, 6)))
    centres = unit_vectors(random.normal(size=(3, 6)))
    weights = random.uniform(0.1, 1, 40)
    chosen: list[int] = []
    for _ in range(10):  # all distances anew in each step
        products = [
            -1.0
            if i in chosen
            else weights[i] * min(np.linalg.norm(vectors[i] - c) for c in [*centres, *vectors[chosen]])
            for i in range(40)
        ]
        chosen.append(int(np.argmax(products)))
    assert farthest_first(vectors, weights, nearest_distances(vectors, centres), 10) == chosen
    everything = farthest_first(vectors, weights, nearest_distances(vectors, centres[:0]), 40)
    assert sorted(everything) == list(range(40)) and everything[0] == int(weights.argmax())


def test_distances_in_blocks_equal_those_at_once(monkeypatch):
    from multitask.labelling import diversity

    random = np.random.default_rng(2)
    vectors, centres = unit_vectors(random.normal(size=(9, 4))), unit_vectors(random.normal(size=(7, 4)))
    expected = np.linalg.norm(vectors[:, None] - centres[None], axis=2).min(1)
    assert nearest_distances(vectors, centres) == pytest.approx(expected, abs=1e-5)
    monkeypatch.setattr(diversity, "_BLOCK", 18)
    assert nearest_distances(vectors, centres) == pytest.approx(expected, abs=1e-5)
