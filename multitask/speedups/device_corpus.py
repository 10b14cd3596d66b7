"""An encoded corpus in the memory of a device, which forms batches there."""

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import UNLABELLED
from multitask.speedups.graph_cache import on_device

FILLER = -1  # in place of a window: a row of [CLS] and [SEP] without labels
_COPIED = 1 << 28  # bytes of features that are copied to the device at once


def padded_length(length: int, longest: int) -> int:
    """The number of tokens, at most `longest`, to which a batch whose longest window has `length` is padded.

    Multiples of 8 up to 64, of 16 up to 128, of 32 up to 256, and so on: few shapes, and little padding."""
    step = max(8, 1 << max(0, (length - 1).bit_length() - 3))
    return max(length, min(-(-length // step) * step, longest))


class DeviceCorpus:
    """A corpus's windows as tensors on `device`, and the frozen layers' output for them, if there is any.

    `collate` equals that of `data.batching`, with padding to any length, and without waiting for the device.
    Labels of tasks that are not in `tasks` are left out: a head that is not trained may not know them."""

    def __init__(self, corpus: EncodedCorpus, tasks: Collection[str], device: torch.device):
        rows = corpus.row_of_window
        words = np.full(len(corpus.ids), -1, np.int32)  # of each subword: the word that begins there
        words[corpus.word_first] = np.arange(len(corpus.word_first))
        both = "task_a" in tasks, "task_b" in tasks
        arrays = {
            "ids": corpus.ids.astype(np.int32),
            "words": words,
            "tags": corpus.word_tags if both[1] else np.full_like(corpus.word_tags, UNLABELLED),
            "starts": corpus.window_start.astype(np.int64),
            "lengths": corpus.window_lengths.astype(np.int64),
            "first_words": corpus.window_words[:-1].astype(np.int64),
            "end_words": corpus.window_words[1:].astype(np.int64),
            "classes": corpus.row_classes[rows] if both[0] else np.full(len(rows), UNLABELLED, np.int32),
            "shares": (1 / np.diff(corpus.window_rows)[rows]).astype(np.float32),
        }
        self.special = corpus.special
        self.tensors = {name: torch.from_numpy(np.array(array)).to(device) for name, array in arrays.items()}
        self.features: Tensor | None = None
        self.offsets: Tensor | None = None
        self.soft: dict[str, Tensor] = {}

    @staticmethod
    def size(corpus: EncodedCorpus) -> int:
        """Bytes that a corpus takes on the device."""
        return 8 * len(corpus.ids) + 4 * len(corpus.word_first) + 40 * len(corpus.window_start)

    def add_features(self, values: np.ndarray, stored: torch.dtype, offsets: np.ndarray) -> None:
        """Add the frozen layers' output: `values` (S, n, D) of all windows' tokens, which hold `stored`
        numbers, and each window's offset there (V + 1,)."""
        device = self.tensors["ids"].device
        self.features = torch.empty(values.shape, dtype=stored, device=device)
        step = max(1, _COPIED // max(1, values[:1].nbytes))
        for first in range(0, len(values), step):  # a memory map is read piece by piece
            part = torch.from_numpy(np.array(values[first : first + step])).view(stored)
            self.features[first : first + step] = part.to(device)
        self.offsets = torch.from_numpy(np.array(offsets)).to(device)

    def add_soft_targets(self, values: Mapping[str, np.ndarray], row_of_window: np.ndarray) -> None:
        """Add a teacher's probabilities: of task_a for each text (N, C), of task_b for each word (W, K)."""
        device = self.tensors["ids"].device
        self.soft = {task: torch.from_numpy(np.array(array)).to(device) for task, array in values.items()}
        self.tensors["rows"] = torch.from_numpy(np.array(row_of_window)).to(device)

    def inputs(self, rows: int, length: int) -> dict[str, Tensor]:
        """The tensor on the device that holds the windows of a batch of that shape."""
        return {"windows": torch.zeros(rows, dtype=torch.int64, device=self.tensors["ids"].device)}

    def prefetch(self, windows: np.ndarray, rows: int, length: int) -> None:
        """Nothing: see HostCorpus."""

    def fill(self, inputs: dict[str, Tensor], windows: np.ndarray, rows: int, length: int) -> None:
        """Copy the numbers of windows (B,), at most `rows`, to the device, without waiting for it."""
        filled = np.full(rows, FILLER)
        filled[: len(windows)] = windows
        inputs["windows"].copy_(on_device(filled, inputs["windows"].device))

    def batch(self, inputs: dict[str, Tensor], length: int) -> dict[str, Tensor]:
        """The batch of the windows that `fill` copied, formed on the device."""
        return self.collate(inputs["windows"], length)

    def close(self) -> None:
        """Nothing: see HostCorpus."""

    def collate(self, windows: Tensor, length: int) -> dict[str, Tensor]:
        """Windows (B,), or FILLER, → the batch of `data.batching.collate`, padded to `length` tokens T.

        With soft targets it has "soft_task_a" (B, C) and "soft_task_b" (B, T, K), zeros where there are none.
        With features it has "hidden" (B, T, n, D) in float32 instead of "input_ids"."""
        t, real = self.tensors, windows >= 0
        window = windows.clamp(min=0)
        lengths = t["lengths"][window].masked_fill(~real, 2)[:, None]  # (B, 1)
        position = torch.arange(length, device=windows.device)[None]  # (1, T)
        mask, inner = position < lengths, (position > 0) & (position < lengths - 1)
        at = (t["starts"][window][:, None] + position - 1).clamp(0, max(0, len(t["ids"]) - 1))
        word = t["words"][at].long().masked_fill(~inner, -1)
        own = (word >= t["first_words"][window][:, None]) & (word < t["end_words"][window][:, None])
        tags = t["tags"][word.clamp(min=0)].long()
        batch = {
            "attention_mask": mask.long(),
            "labels_task_a": t["classes"][window].long().masked_fill(~real, UNLABELLED),
            "labels_task_b": tags.masked_fill(~(own & real[:, None]), UNLABELLED),
            "weights_task_a": t["shares"][window],
        }
        if "task_a" in self.soft:
            batch["soft_task_a"] = self.soft["task_a"][t["rows"][window]] * real[:, None]
        if "task_b" in self.soft:
            soft = self.soft["task_b"][word.clamp(min=0)]  # (B, T, K)
            batch["soft_task_b"] = soft * (own & real[:, None])[..., None]
        if self.features is not None and self.offsets is not None:
            place = self.offsets[window][:, None] + torch.minimum(position, lengths - 1)
            return {**batch, "hidden": self.features[place].float()}
        cls, sep, pad = self.special
        ids = t["ids"][at].long().masked_fill(~inner, sep).masked_fill(position == 0, cls)
        return {**batch, "input_ids": ids.masked_fill(~mask, pad)}
