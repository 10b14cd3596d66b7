"""Packing: windows placed end to end instead of padded, so that matrix multiplications skip the padding.

In a batch of random sentences a third of the cells or more is padding. In a row of several windows each token
attends only to its own window (Krell et al. 2021, "Efficient Sequence Packing without Cross-contamination").
Attention over a row costs more than over a window, therefore rows are short."""

from typing import NamedTuple

import numpy as np

from multitask.data.labels import concatenated_ranges

_WIDTH = 128  # tokens of a row, about; a longer window makes longer rows
_MAX_CELLS = 0.9  # of the padded batch: above it, packing costs more than the saved padding


class Packed(NamedTuple):
    """P rows of S tokens. `owners` is each token's window (its index in the batch), −1 for empty cells.
    `places` is each token's index among the P × S cells, for the padded batch; 0 for padding."""

    input_ids: np.ndarray  # (P, S)
    positions: np.ndarray  # (P, S), in the token's window
    owners: np.ndarray  # (P, S)
    places: np.ndarray  # (B, T)


def pack(input_ids: np.ndarray, attention_mask: np.ndarray, longest_row: int) -> Packed | None:
    """Pack padded windows (B, T), padded at their end, into rows of at most `longest_row` ≥ T tokens.

    Returns None if the rows would not have clearly fewer cells than the padded batch."""
    lengths = attention_mask.sum(1)
    count = -(-int(lengths.sum()) // max(_WIDTH, int(lengths.max())))
    while True:
        row, start, width = assign_rows(lengths, count)
        if count * width > _MAX_CELLS * attention_mask.size:
            return None
        if width <= longest_row:
            break
        count += 1
    window = np.repeat(np.arange(len(lengths)), lengths)
    column = concatenated_ranges(np.zeros_like(lengths), lengths)
    at = (row * width + start)[window] + column
    cells = np.zeros((3, count * width), np.int64)
    cells[2] = -1
    cells[:, at] = input_ids[window, column], column, window
    places = np.zeros(input_ids.shape, np.int64)
    places[window, column] = at
    packed_ids, positions, owners = cells.reshape(3, count, width)
    return Packed(packed_ids, positions, owners, places)


def assign_rows(lengths: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Spread windows over `count` rows → each window's row and its start there, and the longest row's tokens.

    The longest remaining window goes to the row with the fewest tokens (Graham 1969)."""
    filled = [0] * count
    row, start = np.empty_like(lengths), np.empty_like(lengths)
    for window in np.argsort(-lengths, kind="stable").tolist():
        shortest = filled.index(min(filled))
        row[window], start[window] = shortest, filled[shortest]
        filled[shortest] += int(lengths[window])
    return row, start, max(filled)
