"""Running a model over a corpus: batches of windows in threads, and rows put together from their windows.

No torch here: what runs a model may have another library behind it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from multitask.data.batching import batches_by_tokens, word_positions
from multitask.data.corpus import EncodedCorpus

LEAST_TOKENS = 128  # tokens of a batch: fewer are done as soon by one pass on all threads
_ROWS, _WORDS = 4096, 1 << 17  # whose outputs are held at once


class BatchOutput(NamedTuple):
    """What a model gives for a batch of windows, in float32. Without heads it has embeddings alone."""

    embeddings: np.ndarray  # (B, D)
    sentence_logits: np.ndarray | None  # (B, C)
    word_logits: np.ndarray | None  # (words, K), in the order of `word_positions`


class RowOutputs(NamedTuple):
    """A model's outputs over rows [first, last) of a corpus, in float32."""

    first: int
    last: int
    embeddings: np.ndarray  # (rows, D)
    sentence_logits: np.ndarray | None  # (rows, C); None from a model without heads
    word_logits: np.ndarray | None  # (words of these rows, K)


class Runner:
    """A model that is called with a corpus and windows (B,) of it → Pass.

    `config` holds what prediction must repeat of training, as MultiTaskConfig does. `workers` batches of
    about `batch_tokens` tokens, padding counted, may run at once, each in a thread."""

    config: Any
    workers = 1
    batch_tokens = 1024

    def __call__(self, corpus: EncodedCorpus, windows: np.ndarray) -> BatchOutput:
        raise NotImplementedError

    def batches(self, windows: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        """Windows, longest first → those of each call; few of them are shared among the workers too."""
        a_share = -(-int(lengths[windows].sum()) // self.workers)
        return list(batches_by_tokens(windows, lengths, min(self.batch_tokens, max(a_share, LEAST_TOKENS))))

    def without_heads(self) -> "Runner":
        """For embeddings alone, where that is faster."""
        return self

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Around all calls."""
        yield

    def begin_worker(self) -> None:
        """In each thread, before its first call; not where all is called from the caller's own thread."""


def runner_of(model: Any) -> Runner:
    """The Runner of a model: itself, or a TorchRunner of a torch model."""
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
    """Run over a corpus: chunks of rows, in order; within one, windows by length.

    A text of several windows gets the mean of their logits and embeddings; every word is read from the window
    that it belongs to. Calls `progress` with the number of rows done since the last call. Of `rows`
    [first, last) alone, where they are given."""
    first, end = rows or (0, len(corpus))
    with runner.ready():
        while first < end:
            # a chunk has one row at least, however long it is
            fitting = np.searchsorted(corpus.word_rows, corpus.word_rows[first] + _WORDS, side="right") - 1
            last = min(max(int(fitting), first + 1), first + _ROWS, end)
            yield _chunk(runner, corpus, first, last)
            if progress:
                progress(last - first)
            first = last


def _chunk(runner: Runner, corpus: EncodedCorpus, first: int, last: int) -> RowOutputs:
    windows = np.arange(corpus.window_rows[first], corpus.window_rows[last])
    words = int(corpus.word_rows[first]), int(corpus.word_rows[last])
    order = windows[np.argsort(-corpus.window_lengths[windows], kind="stable")]
    batches = runner.batches(order, corpus.window_lengths)
    passes = _passes(runner, corpus, batches)
    starts = corpus.window_rows[first:last] - windows[0]
    counts = np.diff(corpus.window_rows[first : last + 1])[:, None].astype(np.float32)

    def means(parts: list[np.ndarray]) -> np.ndarray:
        by_window = np.concatenate(parts)[np.argsort(order)]
        return np.add.reduceat(by_window, starts) / counts

    embeddings = means([found.embeddings for found in passes])
    if passes[0].word_logits is None:
        return RowOutputs(first, last, embeddings, None, None)
    word_logits = np.empty((words[1] - words[0], passes[0].word_logits.shape[1]), np.float32)
    for batch, found in zip(batches, passes):
        word_logits[word_positions(corpus, batch)[2] - words[0]] = found.word_logits
    return RowOutputs(
        first, last, embeddings, means([found.sentence_logits for found in passes]), word_logits
    )


def _passes(runner: Runner, corpus: EncodedCorpus, batches: list[np.ndarray]) -> list[BatchOutput]:
    """Of every batch, in order. Threads that each take a batch of their own never wait for each other: on two
    cores they did an eighth more sentences than passes that have both, each way at its best size."""
    workers = min(runner.workers, len(batches))
    if workers == 1:
        return [runner(corpus, batch) for batch in batches]
    with ThreadPoolExecutor(workers, initializer=runner.begin_worker) as pool:
        try:
            return list(pool.map(lambda batch: runner(corpus, batch), batches))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
