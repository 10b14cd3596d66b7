"""Run a model over a corpus: batches of windows in threads, whose outputs are joined to rows.

Imports no torch: a Runner may use another library."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np

from multitask.common.chunking import split_into_chunks
from multitask.data.batching import batches_by_tokens, word_positions
from multitask.data.corpus import EncodedCorpus
from multitask.encoders.tag_chain import log_marginals

T = TypeVar("T")

MIN_TOKENS = 128  # per batch: for fewer, one pass on all threads is as fast as several batches
MAX_ROWS, MAX_WORDS = 4096, 1 << 17  # limits of the outputs held in memory at once


class BatchOutput(NamedTuple):
    """A model's outputs for a batch of windows, in float32. Logits are None from a model without heads."""

    embeddings: np.ndarray  # (B, D)
    sentence_logits: np.ndarray | None  # (B, C)
    word_logits: np.ndarray | None  # (words, K), in the order of `word_positions`


class RowOutputs(NamedTuple):
    """A model's outputs for rows [first, last) of a corpus, in float32. Logits: None as in BatchOutput. Those
    of words are the logarithms of probabilities if the model has a CRF."""

    first: int
    last: int
    embeddings: np.ndarray  # (rows, D)
    sentence_logits: np.ndarray | None  # (rows, C)
    word_logits: np.ndarray | None  # (words of these rows, K)


class Runner:
    """A model, called with a corpus and the ids of B of its windows (B,) → BatchOutput.

    `config` has the fields of MultiTaskConfig that prediction needs, `transitions` (K, K) the scores of tags
    that follow each other, if the model has a CRF. Up to `workers` batches of about `batch_tokens` tokens,
    padding included, run at once, each in its own thread."""

    config: Any
    transitions: np.ndarray | None = None
    workers = 1
    batch_tokens = 1024

    def __call__(self, corpus: EncodedCorpus, windows: np.ndarray) -> BatchOutput:
        raise NotImplementedError

    def batches(self, windows: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        """Split windows (longest first) into one batch per call, with a share for each worker."""
        share = -(-int(lengths[windows].sum()) // self.workers)
        return list(batches_by_tokens(windows, lengths, min(self.batch_tokens, max(share, MIN_TOKENS))))

    def start(self, corpus: EncodedCorpus, first: int, last: int) -> Callable[[], BatchOutput]:
        """Begin to run windows [first, last) of a corpus → a function that gives their outputs, in order.

        It is called after the windows that follow have begun. Here the function does all of the work."""
        return lambda: run_windows(self, corpus, first, last)

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
    chunks = _chunks(corpus, *(rows or (0, len(corpus))))
    with runner.ready():
        for out in one_ahead(start_rows(runner, corpus, *chunk) for chunk in chunks):
            yield out
            if progress:
                progress(out.last - out.first)


def one_ahead(begun: Iterable[Callable[[], T]]) -> Iterator[T]:
    """The results of work that is begun by taking the next item, which gives a function that finishes it.

    Each piece of work begins before the result of the one before it is used: a GPU works meanwhile."""
    finish: Callable[[], T] | None = None
    for finish_next in begun:
        if finish:
            yield finish()
        finish = finish_next
    if finish:
        yield finish()


def _chunks(corpus: EncodedCorpus, first: int, end: int) -> Iterator[tuple[int, int]]:
    """Rows [first, end) in chunks of at least one row, however long it is."""
    while first < end:
        fitting = np.searchsorted(corpus.word_rows, corpus.word_rows[first] + MAX_WORDS, side="right") - 1
        last = min(max(int(fitting), first + 1), first + MAX_ROWS, end)
        yield first, last
        first = last


def in_chunks(items: Iterable[T], words: Callable[[T], int]) -> Iterator[list[T]]:
    """Rows in chunks that are run at once; `words` gives the size of a row."""
    return split_into_chunks(items, words, MAX_WORDS, MAX_ROWS)


def start_rows(runner: Runner, corpus: EncodedCorpus, first: int, last: int) -> Callable[[], RowOutputs]:
    """Begin to run rows [first, last) of a corpus → a function that gives their outputs."""
    windows = corpus.window_rows[first : last + 1]
    finish = runner.start(corpus, int(windows[0]), int(windows[-1]))
    offsets = corpus.word_rows[first : last + 1] - corpus.word_rows[first]
    return lambda: RowOutputs(first, last, *in_chains(runner, _row_means(windows, finish()), offsets))


def in_chains(runner: Runner, out: BatchOutput, offsets: np.ndarray) -> BatchOutput:
    """A model's outputs for the words of texts [offsets[i], offsets[i + 1]). If it has a CRF, their logits
    become the logarithms of the probabilities that a word's tags have in its text."""
    if runner.transitions is None or out.word_logits is None:
        return out
    return out._replace(word_logits=log_marginals(out.word_logits, runner.transitions, offsets))


def _row_means(windows: np.ndarray, out: BatchOutput) -> BatchOutput:
    """Outputs of windows → outputs of rows, whose windows are [windows[i], windows[i + 1])."""
    counts = np.diff(windows)[:, None].astype(np.float32)
    if (counts == 1).all():
        return out
    starts = windows[:-1] - windows[0]

    def means(part: np.ndarray) -> np.ndarray:
        return np.add.reduceat(part, starts) / counts

    logits = None if out.sentence_logits is None else means(out.sentence_logits)
    return BatchOutput(means(out.embeddings), logits, out.word_logits)


def run_windows(runner: Runner, corpus: EncodedCorpus, first: int, last: int) -> BatchOutput:
    """Run windows [first, last) in batches of similar length → their outputs, in the order of the windows."""
    lengths = corpus.window_lengths
    order = first + np.argsort(-lengths[first:last], kind="stable")
    batches = runner.batches(order, lengths)
    outputs = run_batches(runner, corpus, batches)
    places = np.argsort(order)
    embeddings = np.concatenate([output.embeddings for output in outputs])[places]
    sentence_parts = [output.sentence_logits for output in outputs if output.sentence_logits is not None]
    word_parts = [output.word_logits for output in outputs if output.word_logits is not None]
    if not word_parts:
        return BatchOutput(embeddings, None, None)
    words = int(corpus.window_words[first]), int(corpus.window_words[last])
    word_logits = np.empty((words[1] - words[0], word_parts[0].shape[1]), np.float32)
    for batch, part in zip(batches, word_parts):
        word_logits[word_positions(corpus, batch)[2] - words[0]] = part
    return BatchOutput(embeddings, np.concatenate(sentence_parts)[places], word_logits)


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
