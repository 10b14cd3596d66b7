"""Confident learning (Northcutt, Jiang & Chuang 2021): wrong labels, found by out-of-sample probabilities.

An item is a row with its class, or a word with the type of its entity."""

import numpy as np


def thresholds(probabilities: np.ndarray, given: np.ndarray) -> np.ndarray:
    """The mean probability (K,) of each label over the items that have it (§3.1, equation 2).

    Infinite for a label that no item has: nothing is counted as it.

    Args:
        probabilities: (n, K) of n items.
        given: (n,) label ids."""
    K = probabilities.shape[1]
    own = probabilities[np.arange(len(given)), given].astype(np.float64)
    counts = np.bincount(given, minlength=K)
    return np.where(counts, np.bincount(given, own, K) / np.maximum(counts, 1), np.inf)


def confident_labels(probabilities: np.ndarray, given: np.ndarray) -> np.ndarray:
    """The label (n,) as which the confident joint counts each item: the most probable one of those whose
    probability reaches their threshold (§3.1, equation 1); −1 where none does."""
    reached = probabilities >= thresholds(probabilities, given) - 1e-9
    best = np.where(reached, probabilities, -1.0).argmax(1)
    return np.where(reached.any(1), best, -1)


def joint_distribution(probabilities: np.ndarray, given: np.ndarray) -> np.ndarray:
    """The joint distribution (K, K) of given and true labels (§3.1, equation 3): its rows are scaled to the
    shares of the given labels. A label without a confident item counts as right."""
    n, K = probabilities.shape
    labels = confident_labels(probabilities, given)
    counts = np.zeros((K, K))
    np.add.at(counts, (given[labels >= 0], labels[labels >= 0]), 1)
    totals, shares = counts.sum(1, keepdims=True), np.bincount(given, minlength=K)[:, None] / max(n, 1)
    return np.where(totals > 0, counts / np.maximum(totals, 1) * shares, np.diag(shares[:, 0]))


def label_quality(probabilities: np.ndarray, given: np.ndarray) -> np.ndarray:
    """How well the given labels fit (n,), from 0 to 1: the normalized margin (§3.2), which is the probability
    of the given label minus the largest one of the others, moved from [−1, 1] to [0, 1]."""
    items = np.arange(len(given))
    others = probabilities.astype(np.float64)
    own = others[items, given].copy()
    others[items, given] = -1.0
    return (own - np.maximum(others.max(1, initial=-1.0), 0) + 1) / 2


def by_confident_joint(probabilities: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Whether each given label is wrong (n,): the item is counted as another label in the confident joint
    (§3.2, method 2), and that label is more probable than the given one."""
    labels = confident_labels(probabilities, given)
    return (labels >= 0) & (labels != given) & (label_quality(probabilities, given) < 0.5)


def by_noise_rate(probabilities: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Whether each given label is wrong (n,): for each pair of labels, as many items as their joint
    distribution gives, those with the largest margin (§3.2, method 4)."""
    joint, n = joint_distribution(probabilities, given), len(given)
    wrong = np.zeros(n, bool)
    for i, j in zip(*np.nonzero(joint)):
        if i != j:
            items = np.flatnonzero(given == i)
            margins = probabilities[items, j] - probabilities[items, i]
            most = np.argsort(-margins, kind="stable")[: round(n * joint[i, j])]
            wrong[items[most[margins[most] > 0]]] = True
    return wrong
