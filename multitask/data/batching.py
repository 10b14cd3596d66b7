"""Batches of windows: which windows go together, as a function of seed and epoch alone, and their tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import UNLABELLED, concatenated_ranges

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 50  # batches sorted by length together: little padding, yet other batches in every epoch


@dataclass(frozen=True)
class LengthGroupedSampler:
    """Batches of windows of similar length, as a function of these fields and the epoch alone."""

    lengths: np.ndarray  # (V,) tokens
    batch_size: int
    seed: int
    groups: np.ndarray | None = None  # (V,) group of each window, to mix groups at a temperature
    temperature: float | None = None  # as in `epoch_windows`; None: every window once

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The window numbers of each batch of an epoch. One batch may be smaller than the others."""
        random = np.random.default_rng((self.seed, epoch))
        order = random.permutation(len(self.lengths))
        if self.temperature is not None and self.groups is not None:
            order = epoch_windows(self.groups, self.temperature, self.seed, epoch)[order]
        size = _CHUNK * self.batch_size
        chunks = (order[at : at + size] for at in range(0, len(order), size))
        order = np.concatenate([chunk[np.argsort(-self.lengths[chunk], kind="stable")] for chunk in chunks])
        batches = [order[at : at + self.batch_size] for at in range(0, len(order), self.batch_size)]
        return [batches[i] for i in random.permutation(len(batches))]


def epoch_windows(groups: np.ndarray, temperature: float, seed: int, epoch: int) -> np.ndarray:
    """The windows of an epoch (V,), sorted, if groups of windows (V,) are mixed at a temperature.

    The share of a group of n windows is proportional to n ** (1 / temperature): at 1 every window occurs
    once; at high temperatures all groups have equal shares (Devlin et al. 2019, multilingual BERT; Aharoni,
    Johnson & Firat 2019). Within a group, the numbers of times that windows occur differ by at most 1, and
    seed and epoch decide which ones occur once more. Shares are of windows, not of texts, so that every epoch
    has the same number of steps."""
    _, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
    quotas = _apportion(counts ** (1 / temperature), len(groups))
    random = np.random.default_rng((seed, epoch, 1))
    times = (quotas // counts)[group]
    for number, extra in enumerate(quotas % counts):
        times[random.permutation(np.flatnonzero(group == number))[:extra]] += 1
    return np.repeat(np.arange(len(groups)), times)


def _apportion(weights: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers (G,) proportional to weights (G,) with this total, by largest remainder."""
    exact = total * weights / weights.sum()
    whole = np.floor(exact).astype(np.int64)
    whole[np.argsort(whole - exact, kind="stable")[: total - whole.sum()]] += 1
    return whole


def pad(corpus: EncodedCorpus, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Windows (B,) → input_ids and attention_mask (B, T), int64."""
    lengths = corpus.window_lengths[windows]
    B, T = len(windows), int(lengths.max())
    cls, sep, pad = corpus.special
    rows = np.arange(B)
    input_ids = np.full((B, T), pad, np.int64)
    input_ids[:, 0] = cls
    input_ids[rows, lengths - 1] = sep
    inner = lengths - 2
    input_ids[np.repeat(rows, inner), concatenated_ranges(np.ones(B, np.int64), inner)] = corpus.ids[
        concatenated_ranges(corpus.window_start[windows], inner)
    ]
    return input_ids, (np.arange(T) < lengths[:, None]).astype(np.int64)


def collate(corpus: EncodedCorpus, windows: np.ndarray) -> dict[str, Tensor]:
    """Windows (B,) → input_ids, attention_mask, labels_task_b (B, T), labels_task_a, weights_task_a (B,)."""
    import torch  # an exported model runs without it

    input_ids, attention_mask = pad(corpus, windows)
    labels_b = np.full(input_ids.shape, UNLABELLED, np.int64)
    row, position, words = word_positions(corpus, windows)
    labels_b[row, position] = corpus.word_tags[words]
    text, shares = text_shares(corpus, windows)
    batch = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "labels_task_a": corpus.row_classes[text].astype(np.int64),
        "labels_task_b": labels_b,
        "weights_task_a": shares.astype(np.float32),
    }
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def batches_by_tokens(windows: np.ndarray, lengths: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """Windows, longest first → batches of about `tokens` tokens, with padding."""
    at = 0
    while at < len(windows):
        size = max(1, tokens // int(lengths[windows[at]]))
        yield windows[at : at + size]
        at += size


def even_batches(windows: np.ndarray, lengths: np.ndarray, count: int) -> list[np.ndarray]:
    """Windows in order → at most `count` batches, with about the same number of tokens in each."""
    tokens = np.cumsum(lengths[windows])
    middles = tokens - lengths[windows] / 2  # of each window: it goes where most of it lies
    ends = np.searchsorted(middles, tokens[-1] * np.arange(1, count) / count)
    return [batch for batch in np.split(windows, ends) if len(batch)]


def word_positions(corpus: EncodedCorpus, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The words of windows (B,): row in the batch, position of the first subword there, and word number."""
    counts = np.diff(corpus.window_words)[windows]
    row = np.repeat(np.arange(len(windows)), counts)
    words = concatenated_ranges(corpus.window_words[windows], counts)
    return row, corpus.word_first[words] - corpus.window_start[windows][row] + 1, words


def annotated_windows(corpus: EncodedCorpus, tasks: Sequence[str]) -> np.ndarray:
    """The windows of the rows that are annotated for at least one of the tasks."""
    annotated = np.zeros(len(corpus), bool)
    if "task_a" in tasks:
        annotated |= corpus.row_classes != UNLABELLED
    if "task_b" in tasks:
        annotated |= corpus.row_tagged
    return np.flatnonzero(annotated[corpus.row_of_window])


def places_of_windows(corpus: EncodedCorpus, windows: np.ndarray, paths: Sequence[str]) -> str:
    """The places of the rows of windows (B,), as file:line, line, ...; file:line, ...

    `paths`: of the corpus's files."""
    rows = np.unique(corpus.row_of_window[windows])
    files, lines = corpus.file_of_row[rows], corpus.row_lines[rows]
    return "; ".join(f"{paths[f]}:{', '.join(map(str, lines[files == f]))}" for f in np.unique(files))


def count_labels(
    corpus: EncodedCorpus, windows: np.ndarray, class_weights: Mapping[str, np.ndarray] | None = None
) -> tuple[float, float]:
    """The divisors of a step's losses: its texts with a class, and its words with a tag.

    A text of n windows counts as 1/n in each. `class_weights` has, for some tasks, the weight of each label
    by id: an item then counts as the weight of its label."""
    text, shares = text_shares(corpus, windows)
    *_, words = word_positions(corpus, windows)
    sums = []
    for task, ids, counts in (
        ("task_a", corpus.row_classes[text], shares),
        ("task_b", corpus.word_tags[words], np.ones(len(words))),
    ):
        labelled = ids != UNLABELLED
        weights = (class_weights or {}).get(task)
        counts = counts[labelled] if weights is None else counts[labelled] * weights[ids[labelled]]
        sums.append(float(counts.sum()))
    return sums[0], sums[1]


def text_shares(corpus: EncodedCorpus, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The row of each window (B,), and the window's share of it (B,): 1/n if the row has n windows."""
    rows = np.searchsorted(corpus.window_rows, windows, side="right") - 1
    return rows, 1 / np.diff(corpus.window_rows)[rows]
