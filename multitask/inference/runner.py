"""Run a model over a corpus: batches of windows in threads, whose outputs are joined to rows.

Imports no torch: a Runner may use another library."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from multitask.data.batching import batches_by_tokens, word_positions
from multitask.data.corpus import EncodedCorpus

MIN_TOKENS = 128  # per batch: for fewer, one pass on all threads is as fast as several batches
MAX_ROWS, MAX_WORDS = 4096, 1 << 17  # limits of the outputs held in memory at once


class BatchOutput(NamedTuple):
    """A model's outputs for a batch of windows, in float32. Logits are None from a model without heads."""

    embeddings: np.ndarray  # (B, D)
    sentence_logits: np.ndarray | None  # (B, C)
    word_logits: np.ndarray | None  # (words, K), in the order of `word_positions`


class RowOutputs(NamedTuple):
    """A model's outputs for rows [first, last) of a corpus, in float32. Logits: None as in BatchOutput."""

    first: int
    last: int
    embeddings: np.ndarray  # (rows, D)
    sentence_logits: np.ndarray | None  # (rows, C)
    word_logits: np.ndarray | None  # (words of these rows, K)


class Runner:
    """A model, called with a corpus and the ids of B of its windows (B,) → BatchOutput.

    `config` has the fields of MultiTaskConfig that prediction needs. Up to `workers` batches of about
    `batch_tokens` tokens, padding included, run at once, each in its own thread."""

    config: Any
    workers = 1
    batch_tokens = 1024

    def __call__(self, corpus: EncodedCorpus, windows: np.ndarray) -> BatchOutput:
        raise NotImplementedError

    def batches(self, windows: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        """Split windows (longest first) into one batch per call, with a share for each worker."""
        share = -(-int(lengths[windows].sum()) // self.workers)
        return list(batches_by_tokens(windows, lengths, min(self.batch_tokens, max(share, MIN_TOKENS))))

    def without_heads(self) -> "Runner":
        """A Runner that returns only embeddings; the same Runner if that is no faster."""
        return self

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Context of all calls of one pass over a corpus."""
        yield

    def begin_worker(self) -> None:
        """Called in each worker thread before its first batch; never in the caller's own thread."""


def runner_of(model: Any) -> Runner:
    """The model itself if it is a Runner, else a TorchRunner of the torch model."""
    if isinstance(model, Runner):
        return model
    from multitask.inference.torch_runner import TorchRunner

    return TorchRunner(model)


def run_model(
    runner: Runner,
    corpus: EncodedCorpus,
    progress: Callable[[int], object] | None = None,
    rows: tuple[int, int] | None = None,
) -> Iterator[RowOutputs]:
    """Run a model over a corpus, or over its `rows` [first, last), and yield chunks of rows in order.

    A text of several windows gets the mean of their sentence logits and embeddings; each word gets its logits
    from the window that it belongs to. Calls `progress` with the number of rows done since the last call."""
    first, end = rows or (0, len(corpus))
    with runner.ready():
        while first < end:
            # at least one row, however long it is
            fitting = np.searchsorted(corpus.word_rows, corpus.word_rows[first] + MAX_WORDS, side="right") - 1
            last = min(max(int(fitting), first + 1), first + MAX_ROWS, end)
            yield _run_chunk(runner, corpus, first, last)
            if progress:
                progress(last - first)
            first = last


def _run_chunk(runner: Runner, corpus: EncodedCorpus, first: int, last: int) -> RowOutputs:
    windows = np.arange(corpus.window_rows[first], corpus.window_rows[last])
    words = int(corpus.word_rows[first]), int(corpus.word_rows[last])
    order = windows[np.argsort(-corpus.window_lengths[windows], kind="stable")]
    batches = runner.batches(order, corpus.window_lengths)
    outputs = run_batches(runner, corpus, batches)
    starts = corpus.window_rows[first:last] - windows[0]
    counts = np.diff(corpus.window_rows[first : last + 1])[:, None].astype(np.float32)

    def row_means(parts: list[np.ndarray]) -> np.ndarray:
        by_window = np.concatenate(parts)[np.argsort(order)]
        return np.add.reduceat(by_window, starts) / counts

    embeddings = row_means([output.embeddings for output in outputs])
    sentence_parts = [output.sentence_logits for output in outputs if output.sentence_logits is not None]
    word_parts = [output.word_logits for output in outputs if output.word_logits is not None]
    if not word_parts:
        return RowOutputs(first, last, embeddings, None, None)
    word_logits = np.empty((words[1] - words[0], word_parts[0].shape[1]), np.float32)
    for batch, part in zip(batches, word_parts):
        word_logits[word_positions(corpus, batch)[2] - words[0]] = part
    return RowOutputs(first, last, embeddings, row_means(sentence_parts), word_logits)


def run_batches(runner: Runner, corpus: EncodedCorpus, batches: list[np.ndarray]) -> list[BatchOutput]:
    """The output of every batch, in order. Threads with a batch each do not wait for each other: on two cores
    they process 1/8 more sentences than passes that use both cores, each with its best batch size."""
    workers = min(runner.workers, len(batches))
    if workers == 1:
        return [runner(corpus, batch) for batch in batches]
    with ThreadPoolExecutor(workers, initializer=runner.begin_worker) as pool:
        try:
            return list(pool.map(lambda batch: runner(corpus, batch), batches))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
