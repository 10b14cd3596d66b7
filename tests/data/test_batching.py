"""Batches: a function of seed and epoch, mixed groups, and tensors equal to those of a slow way."""

import numpy as np
import pytest
import torch
from examples import EXAMPLES, LABELS
from hypothesis import given
from hypothesis import strategies as st

from multitask.data.batching import (
    LengthGroupedSampler,
    annotated_windows,
    collate,
    count_labels,
    epoch_windows,
)
from multitask.data.corpus import encode


@pytest.fixture
def corpus(tokenizer):
    return encode(EXAMPLES, tokenizer, LABELS, 10, 3)


@given(
    st.lists(st.integers(2, 60), min_size=1, max_size=200),
    st.integers(1, 9),
    st.integers(0, 3),
    st.integers(1, 3),
)
def test_batches_hold_each_window_once_and_depend_on_seed_and_epoch_alone(lengths, size, seed, epoch):
    sampler = LengthGroupedSampler(np.array(lengths), size, seed)
    batches = sampler.batches(epoch)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert len(batches) == len(sampler)
    assert sorted(map(len, batches))[1:] == [size] * (len(batches) - 1), "only one batch may be smaller"
    LengthGroupedSampler(np.array(lengths), size, seed).batches(epoch + 1)  # earlier calls must not matter
    again = LengthGroupedSampler(np.array(lengths), size, seed).batches(epoch)
    assert [list(batch) for batch in again] == [list(batch) for batch in batches]


def test_epochs_and_seeds_differ_and_batches_are_of_similar_length():
    lengths = np.random.default_rng(0).integers(5, 60, 4000)
    first, second = (LengthGroupedSampler(lengths, 16, 0).batches(epoch) for epoch in (1, 2))
    other = LengthGroupedSampler(lengths, 16, 1).batches(1)
    assert not np.array_equal(first[0], second[0])
    assert not np.array_equal(first[0], other[0])
    padded = sum(len(batch) * lengths[batch].max() for batch in first)
    shuffled = np.random.default_rng(1).permutation(4000).reshape(-1, 16)
    assert padded < 1.05 * lengths.sum() < sum(16 * lengths[batch].max() for batch in shuffled) / 1.5


GROUPS = st.lists(st.integers(0, 4), min_size=1, max_size=120).map(np.array)
TEMPERATURES = st.floats(1, 50)


@given(GROUPS, TEMPERATURES, st.integers(0, 3), st.integers(1, 3))
def test_groups_have_their_shares_and_windows_of_a_group_occur_equally_often(groups, t, seed, epoch):
    windows = epoch_windows(groups, t, seed, epoch)
    assert len(windows) == len(groups)
    names = sorted(set(groups.tolist()))
    sizes = {name: int((groups == name).sum()) for name in names}
    total = sum(size ** (1 / t) for size in sizes.values())
    for name in names:
        quota = int((groups[windows] == name).sum())
        assert abs(quota - len(groups) * sizes[name] ** (1 / t) / total) < 1
        times = [int((windows == window).sum()) for window in np.flatnonzero(groups == name)]
        assert set(times) <= {quota // sizes[name], quota // sizes[name] + 1}
    np.random.seed(seed)  # global state must not matter
    assert np.array_equal(epoch_windows(groups, t, seed, epoch), windows)


@given(GROUPS, st.integers(0, 3), st.integers(1, 3))
def test_temperature_1_gives_each_window_once(groups, seed, epoch):
    assert np.array_equal(epoch_windows(groups, 1.0, seed, epoch), np.arange(len(groups)))
    lengths = np.arange(len(groups)) % 7 + 2
    plain = LengthGroupedSampler(lengths, 4, seed).batches(epoch)
    mixed = LengthGroupedSampler(lengths, 4, seed, groups, 1.0).batches(epoch)
    assert [list(batch) for batch in mixed] == [list(batch) for batch in plain]


@given(GROUPS, st.integers(0, 3))
def test_high_temperature_gives_groups_equal_shares(groups, seed):
    drawn = groups[epoch_windows(groups, 1e9, seed, 1)]
    shares = [int((drawn == name).sum()) for name in set(groups.tolist())]
    assert max(shares) - min(shares) <= 1


def test_shares_are_rounded_by_largest_remainder():
    # by hand, weights 10, 5 and 4 of the square roots of 100, 25 and 16: 74.21, 37.11 and 29.68 of 141
    groups = np.repeat([7, 3, 5], [100, 25, 16])
    drawn = groups[epoch_windows(groups, 2.0, 0, 1)]
    assert [(drawn == name).sum() for name in (7, 3, 5)] == [74, 37, 30]


def test_windows_of_a_group_occur_equally_often_over_many_epochs():
    groups = np.repeat([0, 1], [60, 20])
    times = np.zeros(80)
    for epoch in range(1, 401):
        windows = epoch_windows(groups, 3.0, 0, epoch)
        times += np.bincount(windows, minlength=80)
    share = np.array([60, 20]) ** (1 / 3) / (60 ** (1 / 3) + 20 ** (1 / 3))
    expected = np.repeat(np.round(80 * share) / [60, 20], [60, 20])
    assert times / 400 == pytest.approx(expected, abs=0.1)
    assert not np.array_equal(epoch_windows(groups, 3.0, 0, 1), epoch_windows(groups, 3.0, 0, 2))
    assert not np.array_equal(epoch_windows(groups, 3.0, 0, 1), epoch_windows(groups, 3.0, 1, 1))


def test_batches_of_a_mixed_epoch_hold_its_windows():
    lengths, groups = np.random.default_rng(0).integers(5, 60, 100), np.repeat([0, 1], [90, 10])
    sampler = LengthGroupedSampler(lengths, 16, 3, groups, 5.0)
    batches = sampler.batches(2)
    assert sorted(np.concatenate(batches)) == list(epoch_windows(groups, 5.0, 3, 2))
    assert len(batches) == len(sampler) == 7


def slow_collate(corpus, windows):
    """`collate`, one window and one word at a time."""
    cls, sep, pad = corpus.special
    rows = []
    for window in windows:
        start, end = corpus.window_start[window], corpus.window_end[window]
        text = next(
            r for r in range(len(corpus)) if corpus.window_rows[r] <= window < corpus.window_rows[r + 1]
        )
        labels = [-100] * (end - start + 2)
        for word in range(corpus.window_words[window], corpus.window_words[window + 1]):
            labels[corpus.word_first[word] - start + 1] = corpus.word_tags[word]
        share = 1 / (corpus.window_rows[text + 1] - corpus.window_rows[text])
        rows.append(([cls, *corpus.ids[start:end], sep], labels, corpus.row_classes[text], share))
    width = max(len(ids) for ids, *_ in rows)

    def padded(values, filler):
        return torch.tensor([[*row, *[filler] * (width - len(row))] for row in values])

    return {
        "input_ids": padded([row[0] for row in rows], pad),
        "attention_mask": padded([[1] * len(row[0]) for row in rows], 0),
        "labels_task_b": padded([row[1] for row in rows], -100),
        "labels_task_a": torch.tensor([int(row[2]) for row in rows]),
        "weights_task_a": torch.tensor([row[3] for row in rows], dtype=torch.float32),
    }


def test_collate_equals_the_slow_way(corpus):
    count = len(corpus.window_start)
    assert count > len(EXAMPLES), "one of the rows has several windows"
    for seed in range(20):
        windows = np.random.default_rng(seed).permutation(count)[: 1 + seed % count]
        fast, slow = collate(corpus, windows), slow_collate(corpus, windows)
        assert fast.keys() == slow.keys()
        for name in fast:
            assert torch.equal(fast[name], slow[name].to(fast[name].dtype)), name


def test_each_labelled_word_and_text_counts_once_over_all_windows(corpus):
    everything = np.arange(len(corpus.window_start))
    batch = collate(corpus, everything)
    words = sum(len(e.words) for e in EXAMPLES if e.spans is not None)
    assert (batch["labels_task_b"] != -100).sum() == words
    assert count_labels(corpus, everything) == pytest.approx((3, words))
    halves = [count_labels(corpus, half) for half in np.array_split(everything, 2)]
    assert np.sum(halves, 0) == pytest.approx((3, words))


def test_rows_without_annotation_for_the_tasks_are_left_out(corpus):
    def rows(tasks):
        return sorted(set(corpus.row_of_window[annotated_windows(corpus, tasks)]))

    assert rows(("task_a",)) == [0, 1, 2]
    assert rows(("task_b",)) == [0, 1, 3]
    assert rows(("task_a", "task_b")) == [0, 1, 2, 3]
