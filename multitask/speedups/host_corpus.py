"""An encoded corpus in the host's memory, whose batches go to a device ahead of their use."""

from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from multitask.data.batching import collate
from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import TASKS, UNLABELLED
from multitask.speedups.frozen_features import FrozenFeatures

Batch = dict[str, Tensor]
FormSoftTargets = Callable[[np.ndarray, int, int], Batch]  # windows, rows, length → those of a batch


class HostCorpus:
    """Forms the batches of a corpus that is too large for the device, one step ahead, in a thread.

    Has the methods of DeviceCorpus that a GraphedStep needs, and gives the same batches. A batch is copied
    from pinned memory, without waiting for the device."""

    def __init__(
        self,
        corpus: EncodedCorpus,
        tasks: Collection[str],
        device: torch.device,
        features: FrozenFeatures | None = None,
        soft: FormSoftTargets | None = None,
    ):
        self.corpus, self.device, self.features, self.soft = corpus, device, features, soft
        self.untrained = [task for task in TASKS if task not in tasks]
        self.thread = ThreadPoolExecutor(1, "batches")
        self.ahead: dict[tuple[int, int, bytes], Future[Batch]] = {}

    def inputs(self, rows: int, length: int) -> Batch:
        """Tensors on the device for a batch of that shape."""
        batch = self._padded(np.zeros(0, np.int64), rows, length)
        return {name: torch.empty_like(tensor, device=self.device) for name, tensor in batch.items()}

    def prefetch(self, windows: np.ndarray, rows: int, length: int) -> None:
        """Begin to form the batch of windows (B,), for a later `fill`."""
        key = rows, length, windows.tobytes()
        if key not in self.ahead:
            self.ahead[key] = self.thread.submit(self._padded, windows, rows, length)

    def fill(self, inputs: Batch, windows: np.ndarray, rows: int, length: int) -> None:
        """Copy the batch of windows (B,), at most `rows`, to the device, without waiting for it."""
        formed = self.ahead.pop((rows, length, windows.tobytes()), None)
        if formed is None:
            self.ahead.clear()  # the steps changed: nothing there is needed
        batch = formed.result() if formed else self._padded(windows, rows, length)
        for name, tensor in batch.items():
            inputs[name].copy_(tensor, non_blocking=True)

    def batch(self, inputs: Batch, length: int) -> Batch:
        """The batch that `fill` copied, as DeviceCorpus gives it."""
        if "hidden" in inputs:
            return {**inputs, "hidden": inputs["hidden"].float()}
        return inputs

    def close(self) -> None:
        """End the thread."""
        self.thread.shutdown(cancel_futures=True)

    def _padded(self, windows: np.ndarray, rows: int, length: int) -> Batch:
        """The batch of windows (B,), padded to (rows, length) as DeviceCorpus does, in pinned memory."""
        cls, sep, pad = self.corpus.special
        real = len(windows)
        values = {"input_ids": pad, "attention_mask": 0, "labels_task_b": UNLABELLED}
        batch = {name: torch.full((rows, length), value) for name, value in values.items()}
        batch["labels_task_a"] = torch.full((rows,), UNLABELLED)
        batch["weights_task_a"] = torch.ones(rows)
        batch["input_ids"][real:, :2] = torch.tensor([cls, sep])
        batch["attention_mask"][real:, :2] = 1
        if real:
            for name, tensor in collate(self.corpus, windows).items():
                batch[name][(slice(real), slice(tensor.shape[1])) if tensor.dim() == 2 else slice(real)] = (
                    tensor
                )
        for task in self.untrained:  # the head of an untrained task may not know these labels
            batch[f"labels_{task}"].fill_(UNLABELLED)
        if self.soft:
            batch |= self.soft(windows, rows, length)
        if self.features:
            del batch["input_ids"]
            hidden = self.features.stored_batch(windows, length)
            batch["hidden"] = torch.cat([hidden, hidden.new_zeros(rows - real, *hidden.shape[1:])])
        if self.device.type == "cuda":
            batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
        return batch
