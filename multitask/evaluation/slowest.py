"""The rows that a model takes longest for, measured one by one."""

import time
from typing import NamedTuple

import numpy as np

from multitask.data.corpus import EncodedCorpus
from multitask.inference.runner import Runner, run_model

CANDIDATES = 20  # the rows with the most tokens, each of which is read once
SHOWN = 10  # those that took longest then, which are read again
_PASSES = 3
SECONDS = 2.0  # after which no pass begins


class Slow(NamedTuple):
    """A row alone: the median time of the model's passes over it, and what it is read as."""

    milliseconds: float
    row: int
    windows: int
    tokens: int  # of all its windows, [CLS] and [SEP] counted


def slowest_rows(runner: Runner, corpus: EncodedCorpus) -> tuple[list[Slow], int]:
    """The slowest rows, the slowest first, and how many were measured to find them.

    The first pass over a row makes ready what later ones find: memory, kernels for its length. It counts
    only where there was no time for another one."""

    def seconds(row: int) -> float:
        begin = time.perf_counter()
        for _ in run_model(runner, corpus, rows=(row, row + 1)):
            pass
        return time.perf_counter() - begin

    tokens = np.add.reduceat(corpus.window_lengths, corpus.window_rows[:-1])
    end, times = time.perf_counter() + SECONDS, {}
    for row in np.argsort(-tokens, kind="stable")[:CANDIDATES].tolist():
        if not times or time.perf_counter() < end:
            times[row] = seconds(row)
    found = []
    for row in sorted(times, key=times.__getitem__, reverse=True)[:SHOWN]:
        again = [seconds(row) for _ in range(_PASSES) if time.perf_counter() < end]
        windows = int(corpus.window_rows[row + 1] - corpus.window_rows[row])
        median = float(np.median(again or times[row]))
        found.append(Slow(1000 * median, row, windows, int(tokens[row])))
    return sorted(found, reverse=True), len(times)
