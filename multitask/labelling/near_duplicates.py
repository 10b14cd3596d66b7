"""Texts of one file that nearly stand in another one."""

from typing import NamedTuple

import numpy as np

from multitask.labelling.diversity import unit_vectors

NEAR = 0.95  # cosine from which two texts are nearly the same; docs/labelling.md has what it finds
_BLOCK = 1 << 24  # cosines that are computed at once


class NearDuplicate(NamedTuple):
    """A row, the row of an earlier file that is most like it, and the cosine of their embeddings."""

    row: int
    earlier: int
    cosine: float


def near_duplicates(embeddings: np.ndarray, files: np.ndarray, lowest: float = NEAR) -> list[NearDuplicate]:
    """The rows that have a near duplicate in an earlier file, the nearest pair first.

    All pairs of rows of two files are compared: the time is proportional to their number.

    Args:
        embeddings: (N, D) of the rows.
        files: (N,) the number of each row's file, ascending.
        lowest: cosine."""
    vectors, found = unit_vectors(embeddings), []
    for file in range(1, int(files.max(initial=0)) + 1):
        first, last = np.searchsorted(files, [file, file + 1])
        step = max(1, _BLOCK // max(1, int(first)))
        for start in range(int(first), int(last), step):
            cosines = vectors[start : min(start + step, int(last))] @ vectors[:first].T
            if not cosines.size:
                continue
            nearest = cosines.argmax(1)
            best = cosines[np.arange(len(cosines)), nearest]
            for at in np.flatnonzero(best >= lowest).tolist():
                found.append(NearDuplicate(start + at, int(nearest[at]), min(float(best[at]), 1.0)))
    return sorted(found, key=lambda pair: (-pair.cosine, pair.row))
