"""Windows put end to end instead of padded: products of matrices then run over tokens alone.

A batch of sentences that came together by chance is a third padding or more. In one row of several windows
each token attends to those of its own window (Krell et al. 2021, "Efficient Sequence Packing without
Cross-contamination"); attention over a row costs more than over a window, so rows are kept short."""

from typing import NamedTuple

import numpy as np

from multitask.data.labels import concatenated_ranges

_WIDTH = 128  # tokens of a row, about
_WORTH = 0.9  # of the padded cells at most, for attention over a row and the way there and back


class Packed(NamedTuple):
    """P rows of S tokens. `owners` holds the window (its row in the batch) of each token, −1 where there is
    none; `places` (B, T) where each token of the padded batch is among the P × S, 0 for padding."""

    input_ids: np.ndarray  # (P, S)
    positions: np.ndarray  # (P, S), in the token's window
    owners: np.ndarray  # (P, S)
    places: np.ndarray  # (B, T)


def pack(input_ids: np.ndarray, attention_mask: np.ndarray, longest_row: int) -> Packed | None:
    """Padded windows (B, T), their tokens first → rows of at most `longest_row` ≥ T tokens; None where they
    would not be much smaller."""
    lengths = attention_mask.sum(1)
    count = -(-int(lengths.sum()) // max(_WIDTH, int(lengths.max())))
    while True:
        row, start, width = _rows(lengths, count)
        if count * width > _WORTH * attention_mask.size:
            return None
        if width <= longest_row:
            break
        count += 1
    window = np.repeat(np.arange(len(lengths)), lengths)
    column = concatenated_ranges(np.zeros_like(lengths), lengths)
    at = (row * width + start)[window] + column
    packed = np.zeros((3, count * width), np.int64)
    packed[2] = -1
    packed[:, at] = input_ids[window, column], column, window
    places = np.zeros(input_ids.shape, np.int64)
    places[window, column] = at
    return Packed(*packed.reshape(3, count, width), places)


def _rows(lengths: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Each window's row of so many, its start in it, and the longest row's tokens: the longest window that is
    left goes to the row that has fewest (Graham 1969)."""
    filled = [0] * count
    row, start = np.empty_like(lengths), np.empty_like(lengths)
    for window in np.argsort(-lengths, kind="stable").tolist():
        least = filled.index(min(filled))
        row[window], start[window] = least, filled[least]
        filled[least] += int(lengths[window])
    return row, start, max(filled)
