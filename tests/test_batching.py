import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multitask.batching import LengthGroupedSampler, collate, labelled_counts, usable_windows
from multitask.encoding import encode
from multitask.labels import LabelSpace, Span
from multitask.rows import Example

LABELS = LabelSpace(("x", "y"), ("LOC", "PER"), "IO")
EXAMPLES = [
    Example(["anna", "won", "in", "paris"], [Span(0, 1, "PER"), Span(3, 4, "LOC")], "x"),
    Example(list("abcdefghijklmnop"), [Span(2, 9, "LOC")], "y"),
    Example(["vote"], None, "x"),
    Example(["the", "match"], [], None),
    Example([], None, None),
]


@pytest.fixture
def corpus(tokenizer):
    return encode(EXAMPLES, tokenizer, LABELS, 10, 3)


@given(
    st.lists(st.integers(2, 60), min_size=1, max_size=200),
    st.integers(1, 9),
    st.integers(0, 3),
    st.integers(1, 3),
)
def test_batches_hold_everything_once_and_depend_on_seed_and_epoch_alone(lengths, size, seed, epoch):
    sampler = LengthGroupedSampler(np.array(lengths), size, seed)
    batches = sampler.batches(epoch)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert len(batches) == len(sampler)
    assert sorted(map(len, batches))[1:] == [size] * (len(batches) - 1), "only one batch may be smaller"
    LengthGroupedSampler(np.array(lengths), size, seed).batches(epoch + 1)  # the past must not matter
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


def slow_collate(corpus, windows):
    """The same batch, a window and a word at a time."""
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


def test_a_batch_is_that_of_the_slow_way(corpus):
    count = len(corpus.window_start)
    assert count > len(EXAMPLES), "a row of several windows is among them"
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
    assert labelled_counts(corpus, everything) == pytest.approx((3, words))
    halves = [labelled_counts(corpus, half) for half in np.array_split(everything, 2)]
    assert np.sum(halves, 0) == pytest.approx((3, words))


def test_windows_without_the_annotation_of_a_task_are_left_out(corpus):
    def rows(tasks):
        return sorted(set(corpus.row_of_window[usable_windows(corpus, tasks)]))

    assert rows(("task_a",)) == [0, 1, 2]
    assert rows(("task_b",)) == [0, 1, 3]
    assert rows(("task_a", "task_b")) == [0, 1, 2, 3]
