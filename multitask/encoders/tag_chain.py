"""Decode with a linear-chain CRF: the probability of each word's tags, given all words of its text.

Needs no torch, since an exported model runs without it."""

from collections.abc import Iterator

import numpy as np

from multitask.data.labels import concatenated_ranges

BLOCK_WORDS = 1 << 14  # worked on at once: small enough for a core's cache
MAX_SPREAD = 200.0  # nats, as in training: the least likely transition below the likeliest
_LEAST = 1e-300  # a probability whose logarithm is finite


def log_marginals(scores: np.ndarray, transitions: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Scores (W, K) of the words of texts [offsets[i], offsets[i + 1]) → the logarithms of the words' tag
    probabilities (W, K) in float32.

    The probability of a tag is the sum of those of all chains that have it (Rabiner 1989, §III.B), where the
    probability of a chain is the softmax over the sums of its scores and transitions.

    Args:
        transitions: (K, K) scores of a tag, the row, followed by another, the column."""
    steps = transitions.astype(np.float64)
    moves = np.exp(np.maximum(steps - steps.max(), -MAX_SPREAD))
    result = np.empty(scores.shape, np.float32)
    lengths = np.diff(offsets)
    for rows in _blocks(lengths):
        starts, counts = offsets[:-1][rows], lengths[rows]
        running = np.searchsorted(-counts, -np.arange(counts[0]))  # texts that have a word at each position
        # position by position, and there text by text: the words of a step are side by side
        step = np.repeat(np.arange(len(running)), running)
        words = starts[concatenated_ranges(np.zeros(len(running), np.int64), running)] + step
        result[words] = _log_marginals(scores[words].astype(np.float64), moves, running)
    return result


def _blocks(lengths: np.ndarray) -> Iterator[np.ndarray]:
    """The texts that have words, longest first, in blocks of about BLOCK_WORDS words."""
    order = np.argsort(-lengths, kind="stable")
    order = order[: np.count_nonzero(lengths)]
    block = (np.cumsum(lengths[order]) - lengths[order]) // BLOCK_WORDS
    yield from (part for part in np.split(order, np.flatnonzero(np.diff(block)) + 1) if len(part))


def _log_marginals(scores: np.ndarray, moves: np.ndarray, running: np.ndarray) -> np.ndarray:
    """`log_marginals` of scores in which step t has running[t] words, of the texts that are left."""
    local = np.exp(scores - scores.max(1, keepdims=True))
    ends = np.cumsum(running)
    parts = [local[end - n : end] for end, n in zip(ends, running)]
    forward = np.empty_like(local)
    current = np.ones((running[0], len(moves)))
    for number, (part, end) in enumerate(zip(parts, ends)):
        n = len(part)
        joint = (current[:n] @ moves if number else current) * part
        current = np.divide(joint, joint.sum(1, keepdims=True), out=forward[end - n : end])
    after = np.ones_like(local)
    for number in range(len(running) - 1, 0, -1):
        part, end = parts[number], ends[number]
        message = (part * after[end - len(part) : end]) @ moves.T
        message /= message.sum(1, keepdims=True)
        begin = ends[number - 1] - running[number - 1]
        after[begin : begin + len(part)] = message
    forward *= after
    forward /= forward.sum(1, keepdims=True)
    return np.log(np.maximum(forward, _LEAST))
