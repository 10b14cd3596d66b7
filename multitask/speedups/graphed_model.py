"""A model's passes over windows on a GPU, in a few shapes that are CUDA graphs."""

import threading
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from multitask.data.batching import pad, word_positions
from multitask.data.corpus import EncodedCorpus
from multitask.speedups.device_corpus import padded_length
from multitask.speedups.graph_cache import GraphCache, on_device

Forward = Callable[[Tensor, Tensor, bool], list[Tensor]]
"""Ids and mask (B, T), and whether to run the heads → embeddings (B, D), and logits (B, C) and (B, T, K)."""


class GraphedModel:
    """Runs windows in batches of `tokens` tokens, one shape for each padded length, without waiting.

    Outputs are gathered on the device and copied to the host once for a chunk of windows. Several threads may
    use it at once.

    Args:
        forward: the pass, in evaluation mode. It always uses the same weights.
        longest: the tokens that the encoder can read."""

    def __init__(self, device: torch.device, forward: Forward, longest: int, tokens: int = 4096):
        self.device, self.forward, self.longest, self.tokens = device, forward, longest, tokens
        self.cache = GraphCache(device)
        self.inputs: dict[int, Tensor] = {}  # by length T: ids and mask (2, B, T)
        self.outputs: dict[tuple[bool, int], list[Tensor]] = {}  # by heads and length
        self.lock = threading.Lock()

    @torch.inference_mode()
    def start(
        self, corpus: EncodedCorpus, first: int, last: int, heads: bool
    ) -> Callable[[], list[np.ndarray]]:
        """Begin to run windows [first, last) → a function that waits for embeddings (windows, D) and, with
        heads, for logits (windows, C) and (words, K), all in float32 and in order."""
        lengths = corpus.window_end[first:last] - corpus.window_start[first:last] + 2
        table = np.array([padded_length(n, self.longest) for n in range(int(lengths.max()) + 1)])
        padded = table[lengths]
        order = np.argsort(padded, kind="stable")
        row, position, words = word_positions(corpus, first + order)
        word_ends = np.cumsum(np.diff(corpus.window_words)[first + order])
        host = np.concatenate([order, words - corpus.window_words[first]])
        with self.lock:
            places = on_device(host, self.device)
            results: list[Tensor] = []
            for start, end, length in self._batches(padded[order]):
                outputs = self._run(corpus, first + order[start:end], length, heads)
                if not results:
                    sizes = [len(order), len(order), len(words)]
                    results = [out.new_empty(size, out.shape[-1]) for size, out in zip(sizes, outputs)]
                for result, output in zip(results[:2], outputs):
                    result.index_copy_(0, places[start:end], output[: end - start])
                begin, stop = (int(word_ends[i - 1]) if i else 0 for i in (start, end))
                if heads and begin < stop:
                    cells = (row[begin:stop] - start) * length + position[begin:stop]
                    tokens = outputs[2].flatten(0, 1)
                    found = tokens.index_select(0, on_device(cells, self.device))
                    results[2].index_copy_(0, places[len(order) :][begin:stop], found)
            return self._copy_to_host(results)

    def _run(self, corpus: EncodedCorpus, windows: np.ndarray, length: int, heads: bool) -> list[Tensor]:
        """The outputs of at most B windows, which stay valid until the next call."""
        rows = max(1, self.tokens // length)
        if length not in self.inputs:
            self.inputs[length] = torch.zeros(2, rows, length, dtype=torch.int64, device=self.device)
        inputs = self.inputs[length]

        def work() -> None:
            self.outputs[heads, length] = self.forward(inputs[0], inputs[1], heads)

        def warm_up() -> None:
            inputs.zero_()
            inputs[1, :, : max(1, length // 2)] = 1  # some padding, as in a real batch
            work()

        graph = self.cache.get((heads, length), work, warm_up)
        ids, mask = pad(corpus, windows)
        batch = np.zeros((2, rows, length), np.int64)
        batch[0, : len(windows), : ids.shape[1]] = ids
        batch[1, : len(windows), : ids.shape[1]] = mask
        batch[1, len(windows) :, 0] = 1  # an empty row would give NaN
        inputs.copy_(on_device(batch, self.device))
        graph.replay()
        return self.outputs[heads, length]

    def _copy_to_host(self, results: list[Tensor]) -> Callable[[], list[np.ndarray]]:
        copies = [result.float().to("cpu", non_blocking=True) for result in results]
        copied = torch.cuda.Event() if self.cache.on_gpu else None
        if copied:
            copied.record(torch.cuda.current_stream(self.device))

        def wait() -> list[np.ndarray]:
            if copied:
                copied.synchronize()
            return [copy.numpy() for copy in copies]

        return wait

    def _batches(self, padded: np.ndarray) -> list[tuple[int, int, int]]:
        """Padded lengths in rising order → batches (start, end, length) of one length each."""
        batches = []
        lengths, starts, counts = np.unique(padded, return_index=True, return_counts=True)
        for length, start, count in zip(lengths.tolist(), starts.tolist(), counts.tolist()):
            rows = max(1, self.tokens // length)
            for at in range(start, start + count, rows):
                batches.append((at, min(at + rows, start + count), length))
        return batches
