"""Run a torch model as a Runner, with packed batches on the CPU."""

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, cast

import numpy as np
import torch
from torch.nn import functional
from transformers.models.bert.modeling_bert import BertLayer

from families import part
from model import MultiTaskTransformer, SentenceTransformer
from multitask.common.device import autocast, choose_precision, out_of_memory
from multitask.data.batching import even_batches, pad, word_positions
from multitask.data.corpus import EncodedCorpus
from multitask.inference.packing import Packed, pack
from multitask.inference.runner import MIN_TOKENS, BatchOutput, Runner, run_windows
from multitask.speedups.graph_cache import CaptureError
from multitask.speedups.graphed_model import GraphedModel

logger = logging.getLogger(__name__)


class HiddenStates(Protocol):
    """Precomputed outputs of a model's `stored_layers(depth)` for a corpus."""

    depth: int

    def batch(self, windows: np.ndarray) -> torch.Tensor:
        """Windows (B,) → hidden states of these layers (B, T, n, D)."""
        ...


class TorchRunner(Runner):
    """Runs a SentenceTransformer or MultiTaskTransformer, which is in evaluation mode meanwhile.

    With `features`, only the encoder's layers above them run. With bfloat16 as the `precision`, autocast
    converts float32 weights for every matrix multiplication."""

    def __init__(
        self,
        model: SentenceTransformer,
        features: HiddenStates | None = None,
        precision: torch.dtype = torch.float32,
    ):
        self.model, self.features, self.precision, self.config = model, features, precision, model.config
        self.heads = isinstance(model, MultiTaskTransformer)
        self.graphs: GraphedModel | None = None
        self.threads = torch.get_num_threads()
        on_cpu = model.device.type == "cpu"
        # packing needs an attention mask per row, which the fast attention of GPUs does not take
        self.packs = on_cpu and model.config._attn_implementation == "sdpa" and model.config.family.packs
        if on_cpu:
            self.workers = self.threads
        else:
            self.batch_tokens = 1 << 14  # a GPU needs large batches

    @property
    def transitions(self) -> np.ndarray | None:  # type: ignore[override]  # of the weights as they are now
        learned = self.model.transitions if isinstance(self.model, MultiTaskTransformer) else None
        return None if learned is None else learned().detach().float().cpu().numpy()

    def without_heads(self) -> "TorchRunner":
        runner = copy.copy(self)
        runner.heads = False
        return runner

    def batches(self, windows: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        if not (self.packs and self.heads and self.features is None):
            return super().batches(windows, lengths)
        tokens = int(lengths[windows].sum())
        count = -(-tokens // (self.batch_tokens * self.workers)) * self.workers
        return even_batches(windows, lengths, min(count, max(1, tokens // MIN_TOKENS)))

    def __call__(self, corpus: EncodedCorpus, windows: np.ndarray) -> BatchOutput:
        return _batch_output([tensor.float().cpu().numpy() for tensor in self._run(corpus, windows)])

    def start(self, corpus: EncodedCorpus, first: int, last: int) -> Callable[[], BatchOutput]:
        if self.graphs is not None:
            try:
                finish = self.graphs.start(corpus, first, last, self.heads)
                return lambda: _batch_output(finish())
            except RuntimeError as error:
                if not (isinstance(error, CaptureError) or out_of_memory(error)):
                    raise
                reason = str(error).splitlines()[0]
            # after the except block, because the error holds the tensors of the pass
            logger.warning(f"prediction continues without CUDA graphs: {reason}")
            self.graphs.cache.clear()
            self.graphs = None
        return lambda: self._run_within_memory(corpus, first, last)

    def _run_within_memory(self, corpus: EncodedCorpus, first: int, last: int) -> BatchOutput:
        """`run_windows`, in smaller batches from then on if the device's memory is too small."""
        while True:
            try:
                return run_windows(self, corpus, first, last)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or self.batch_tokens <= MIN_TOKENS:
                    raise
            self.batch_tokens //= 2
            logger.warning(f"out of memory: continuing with batches of {self.batch_tokens} tokens")
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()

    def use_graphs(self, tokens: int = 4096) -> None:
        """Run a few shapes of batches as CUDA graphs from now on: several times as fast for short texts. For
        many calls, since each shape costs some time at its first use. `tokens`: of a batch."""
        longest = self.config.num_positions
        self.graphs = GraphedModel(self.model.device, self._forward, longest, tokens)

    @torch.inference_mode()
    def _run(self, corpus: EncodedCorpus, windows: np.ndarray) -> list[torch.Tensor]:
        """The tensors of a BatchOutput, on the device."""
        model = self.model
        arrays = pad(corpus, windows)
        ids, mask = (torch.from_numpy(array).to(model.device) for array in arrays)
        packed = None
        if self.packs and self.heads and self.features is None:
            packed = pack(*arrays, self.config.num_positions)
        hidden = self.features.batch(windows) if self.heads and self.features else None
        outputs = self._forward(ids, mask, self.heads, packed, hidden)
        if not self.heads:
            return outputs
        row, position, _ = word_positions(corpus, windows)
        words = torch.from_numpy(row * mask.shape[1] + position).to(model.device)
        return [*outputs[:2], outputs[2].flatten(0, 1).index_select(0, words)]

    def _forward(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        heads: bool,
        packed: Packed | None = None,
        hidden: torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        """Ids and mask (B, T) → embeddings (B, D) and, with heads, logits (B, C) and (B, T, K)."""
        model = self.model
        with autocast(model.device, self.precision):
            if not heads:
                return [_embeddings(model, ids, mask)]
            assert isinstance(model, MultiTaskTransformer)  # as self.heads says
            if packed:
                states = _packed_states(model, packed)
            elif hidden is not None and self.features:
                states = model.states(None, mask, hidden, self.features.depth)
            else:
                states = model.states(ids, mask)
            return [model.pool(states[-1], mask), *model.heads(states, mask)]

    @contextmanager
    def ready(self) -> Iterator[None]:
        was_training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(was_training)
            torch.set_num_threads(self.threads)  # begin_worker changed the number for new threads too

    def begin_worker(self) -> None:
        torch.set_num_threads(1)


def fast_runner(model: SentenceTransformer, precision: str = "auto") -> TorchRunner:
    """A TorchRunner for many calls. In 16 bits it runs a copy of the model with such weights, which need no
    conversion in every call. `precision`: "auto", "bf16", "fp16" or "fp32"."""
    if (chosen := choose_precision(precision, model.device)) != torch.float32:
        model = copy.deepcopy(model).to(chosen)
    runner = TorchRunner(model)
    if model.device.type == "cuda" and model.config.family.replays:
        runner.use_graphs()
    return runner


def _embeddings(model: SentenceTransformer, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Equals `model.pool(model.encode(...))`; for [CLS], the last layer runs for the first token only."""
    family = model.config.family
    if model.config.pooling != "cls" or not family.has_bert_layers:
        return model.pool(model.encode(ids, mask), mask)
    last = model.config.num_hidden_layers - 1
    hidden = model.encode(ids, mask, layers=last)  # (B, T, D)
    layer = cast(BertLayer, part(model.base_model, family.layers)[last])
    attention, first = layer.attention.self, hidden[:, :1]

    def by_head(states: torch.Tensor) -> torch.Tensor:
        return states.unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2)  # (B, H, T, D / H)

    mixed = functional.scaled_dot_product_attention(
        by_head(attention.query(first)),
        by_head(attention.key(hidden)),
        by_head(attention.value(hidden)),
        attn_mask=mask[:, None, None].bool(),
    )
    return layer.feed_forward_chunk(layer.attention.output(mixed.transpose(1, 2).flatten(2), first))[:, 0]


def _packed_states(model: MultiTaskTransformer, packed: Packed) -> list[torch.Tensor]:
    """Equals `model.states` of the padded batch (B, T, D), except at padding: values there are arbitrary."""
    ids, positions, owners, places = map(torch.from_numpy, packed)
    own = owners[:, None, :, None] == owners[:, None, None, :]  # (P, 1, S, S)
    states = model.states(None, own, model.embed(ids, own, positions))  # (P, S, D) each
    return [hidden.flatten(0, 1)[places] for hidden in states]


def _batch_output(arrays: list[np.ndarray]) -> BatchOutput:
    return BatchOutput(*arrays) if len(arrays) == 3 else BatchOutput(arrays[0], None, None)
