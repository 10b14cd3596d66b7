"""The output of an encoder's frozen layers for a corpus: computed once, then read in every epoch."""

import logging
import math
import os
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from model import MultiTaskTransformer
from multitask.common import distributed
from multitask.common.array_cache import ArrayCache, check_disk_space, digest
from multitask.common.device import autocast
from multitask.config.schema import Settings
from multitask.data.batching import batches_by_tokens, collate
from multitask.data.corpus import EncodedCorpus, lengths_to_offsets
from multitask.data.labels import concatenated_ranges
from multitask.encoders.config_fields import Configuration
from multitask.encoders.family_fields import CONFIGURATIONS

logger = logging.getLogger(__name__)

_FORMAT = 1  # version of cached features; other versions are computed again
_TOKENS = 2048  # per batch, with padding: 8192 took 1.4 times as long on a CPU
_GPU_TOKENS = 1 << 14  # every new shape of a batch costs a GPU 0.2 s, because it loads other kernels
_GROUP = 16384  # windows that are sorted by length together
_STORED: dict[torch.dtype, np.dtype] = {
    torch.float32: np.dtype(np.float32),
    torch.float16: np.dtype(np.float16),
    torch.bfloat16: np.dtype(np.uint16),  # numpy has no bfloat16
}
_LARGE = 1 << 30  # bytes


class FrozenFeatures:
    """Hidden states of a model's n `stored_layers(depth)`, for every token of a corpus's windows: (S, n, D).

    The layers run without dropout, as frozen layers always do. The result stays in memory or, if it is larger
    than `memory` bytes, in memory-mapped files under `cache_dir`, where the next run finds it by a key of
    everything that it depends on. Without a `cache_dir` it stays in memory, whatever its size. `progress` is
    called with the number of windows done since the last call. Raises InputError if the disk is too small.

    Several layers that would take more than `large` bytes in float32 are stored in float16. `large` does not
    depend on the machine, so that a run resumes to the same bits on another one."""

    def __init__(
        self,
        model: MultiTaskTransformer,
        corpus: EncodedCorpus,
        depth: int,
        precision: torch.dtype = torch.float32,
        memory: int = 1 << 62,
        cache_dir: str | None = None,
        progress: Callable[[int], object] | None = None,
        large: int = _LARGE,
    ):
        self.corpus, self.depth, self.precision, self.device = corpus, depth, precision, model.device
        self.layers = model.stored_layers(depth)
        self.offsets = lengths_to_offsets(corpus.window_lengths)
        shape = (int(self.offsets[-1]), len(self.layers), model.config.hidden_size)
        self.stored = precision
        if precision == torch.float32 and len(self.layers) > 1 and 4 * math.prod(shape) > large:
            self.stored = torch.float16
        stored = _STORED[self.stored]
        size = math.prod(shape) * stored.itemsize
        if cache_dir is None or size <= memory:
            self.values = np.empty(shape, stored)
            self.fill(model, self.values, progress)
            return
        store = ArrayCache(cache_dir)
        key = features_key(model, corpus, depth, self.stored)
        with distributed.main_process_first():
            cached = store.load(key)
            if cached is None:
                check_disk_space(cache_dir, size, "the frozen layers' features")
                logger.info(
                    f"the frozen layers' features are cached in {cache_dir}: {size / 1e9:.1f} GB on disk"
                )
                with store.create(key) as writer:
                    self.fill(model, writer.array("features", stored, shape), progress)
                cached = store.load(key)
        assert cached is not None  # found, or just written
        self.values = cached["features"].reshape(shape)  # earlier versions left out the axis of one layer

    def batch(self, windows: np.ndarray) -> Tensor:
        """Hidden states (B, T, n, D) of windows (B,), as `model.states` takes them. Padding is arbitrary."""
        hidden = self.stored_batch(windows, int(self.corpus.window_lengths[windows].max()))
        return hidden.to(self.device).float()

    def stored_batch(self, windows: np.ndarray, length: int) -> Tensor:
        """Hidden states (B, length, n, D) of windows (B,), as they are stored, on the host."""
        lengths = self.corpus.window_lengths[windows]
        # masked positions need not be zero: a window's last token is repeated as its padding
        place = self.offsets[windows][:, None] + np.minimum(np.arange(length), lengths[:, None] - 1)
        hidden = torch.from_numpy(self.values[place.ravel()]).view(self.stored)
        return hidden.view(len(windows), length, *self.values.shape[1:])

    @torch.inference_mode()
    def fill(
        self, model: MultiTaskTransformer, values: np.ndarray, progress: Callable[[int], object] | None
    ) -> None:
        """Compute all hidden states into `values` (S, n, D)."""
        was_training = model.training
        model.eval()
        tokens = _TOKENS if self.device.type == "cpu" else _GPU_TOKENS
        for windows in _by_length(self.corpus.window_lengths, tokens):
            batch = collate(self.corpus, windows)
            ids, mask = (batch[name].to(model.device) for name in ("input_ids", "attention_mask"))
            with autocast(model.device, self.precision):
                states = torch.stack(model.states(ids, mask, layers=self.layers), 2)  # (B, T, n, D)
            flat = states[mask.bool()].to(self.stored).cpu()
            lengths = self.corpus.window_lengths[windows]
            stored = flat.view(torch.uint16) if self.stored == torch.bfloat16 else flat
            values[concatenated_ranges(self.offsets[windows], lengths)] = stored.numpy()
            if progress:
                progress(len(windows))
        model.train(was_training)


def features_with_progress(
    model: MultiTaskTransformer,
    corpus: EncodedCorpus,
    depth: int,
    precision: torch.dtype,
    settings: Settings,
    title: str,
) -> FrozenFeatures:
    """The features that a run's settings ask for, with a progress bar of that title."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    memory = int(settings.training.feature_memory * installed) // distributed.world_size()
    hidden = distributed.disable_progress_bar()
    with tqdm(total=len(corpus.window_start), desc=title, leave=False, disable=hidden) as bar:
        return FrozenFeatures(model, corpus, depth, precision, memory, settings.cache_dir, bar.update)


def features_key(model: MultiTaskTransformer, corpus: EncodedCorpus, depth: int, stored: torch.dtype) -> str:
    """A hash of all that features depend on: the frozen weights, the configuration that the layers use, the
    layers, subwords, windows, the data type."""
    parts = [module for modules in model.parts()[: depth + 1] for module in modules]
    weights = [tensor.cpu().numpy() for part in parts for tensor in part.state_dict().values()]
    config = model.config
    names = ["hidden_act", "num_attention_heads", "layer_norm_eps"]  # of BERT, as in earlier versions
    if config.model_type != "bert":
        dropouts = {*config.family.dropouts, config.family.attention_dropout}
        own = CONFIGURATIONS[config.model_type].model_fields.keys() - Configuration.model_fields.keys()
        names = sorted(own - dropouts)
    used = [getattr(config, name, None) for name in names]
    windows = (corpus.ids, corpus.window_start, corpus.window_end, str(corpus.special))
    layers = model.stored_layers(depth)
    several = [str(layers)] if len(layers) > 1 else []  # earlier versions stored one layer
    return digest(_FORMAT, depth, str(stored), *several, *map(str, used), *windows, *weights)


def _by_length(lengths: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """All windows in batches of about `tokens` tokens and similar lengths.

    Groups keep their order, to write a file from its beginning to its end."""
    for first in range(0, len(lengths), _GROUP):
        group = first + np.argsort(-lengths[first : first + _GROUP], kind="stable")
        yield from batches_by_tokens(group, lengths, tokens)
