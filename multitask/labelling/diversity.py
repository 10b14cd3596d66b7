"""Choosing texts that are far from each other: greedy k-center."""

import numpy as np

_BLOCK = 1 << 24  # cosines that are computed at once


def unit_vectors(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings (n, D) → the same, of length 1, float32. A zero stays a zero."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return (embeddings / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)


def nearest_distances(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The Euclidean distance (n,) of vectors (n, D) to the nearest of the centres (m, D), all of length 1.

    Without centres it is 2, the largest that there is."""
    distances = np.full(len(vectors), 2.0, np.float32)
    step = max(1, _BLOCK // max(1, len(vectors)))
    for first in range(0, len(centres), step):
        cosines = (vectors @ centres[first : first + step].T).max(1)
        distances = np.minimum(distances, np.sqrt(np.maximum(2 - 2 * cosines, 0)))
    return distances


def farthest_first(vectors: np.ndarray, weights: np.ndarray, distances: np.ndarray, count: int) -> list[int]:
    """Choose vectors one by one: each time the one with the largest product of its weight and its distance to
    the nearest vector chosen before. With equal weights this is greedy k-center (Gonzalez 1985), the core-set
    of Sener & Savarese 2018 (§4, algorithm 1).

    Args:
        vectors: (n, D) of length 1.
        weights: (n,) positive.
        distances: (n,) to the nearest centre that is there from the beginning, as from `nearest_distances`.
        count: of vectors to choose, at most n.

    Returns: their numbers, in the order of the choice. Equal products: the earlier vector."""
    distances, open_ = distances.astype(np.float64), np.ones(len(vectors), bool)
    chosen: list[int] = []
    for _ in range(count):
        best = int(np.where(open_, weights * distances, -1).argmax())
        chosen.append(best)
        open_[best] = False
        distances = np.minimum(distances, np.sqrt(np.maximum(2 - 2 * (vectors @ vectors[best]), 0)))
    return chosen
