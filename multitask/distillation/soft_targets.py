"""Soft targets: the probabilities that a student learns, computed once for all texts and words of train."""

import os
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from model import MultiTaskOutput
from multitask.common import distributed
from multitask.common.array_cache import ArrayCache, check_disk_space, digest
from multitask.common.checksums import folder_hash
from multitask.config.schema import Settings, trained_tasks
from multitask.data.batching import annotated_windows, text_shares, word_positions
from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import TASKS, LabelSpace
from multitask.distillation.loss import soft_loss
from multitask.distillation.teacher import Teacher
from multitask.distillation.teacher_outputs import by_own_labels, soften, teacher_probabilities

_FORMAT = 1  # of cached entries; increase it when they would hold other numbers
Counts = tuple[float | Tensor, float | Tensor]


class SoftTargets:
    """A teacher's probabilities for N texts (N, C) and W words (W, K) of a corpus, at a temperature.

    They are zeros where the teacher gives none. A teacher that is a model has an answer for every text.

    Attributes:
        share: of the teacher in the loss.
        has: trained task that the teacher knows → whether each text (N,), or word (W,), has a soft target.
        values: task → probabilities, float32, after `compute`."""

    def __init__(self, teacher: Teacher, corpus: EncodedCorpus, labels: LabelSpace, settings: Settings):
        self.teacher, self.corpus, self.labels, self.settings = teacher, corpus, labels, settings
        self.share, self.temperature = settings.distillation.share, settings.distillation.temperature
        self.tasks = [task for task in trained_tasks(settings) if teacher.known(task)]
        sizes = {"task_a": len(corpus), "task_b": len(corpus.word_tags)}
        given = {} if teacher.rows is None else {"task_a": teacher.rows.classes, "task_b": teacher.rows.tags}
        self.has = {
            task: given[task].has(sizes[task]) if given else np.ones(sizes[task], bool) for task in self.tasks
        }
        self.shapes = {
            task: (sizes[task], len(labels.classes if task == "task_a" else labels.tags))
            for task in self.tasks
        }
        self.values: dict[str, np.ndarray] = {}

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return sum(4 * items * names for items, names in self.shapes.values())

    def windows(self) -> np.ndarray:
        """The windows that have something to learn: a label with a share in the loss, or a soft target."""
        tasks = trained_tasks(self.settings)
        learned = np.zeros(len(self.corpus.window_start), bool)
        if self.share < 1:
            learned[annotated_windows(self.corpus, tasks)] = True
        if "task_a" in self.has:
            learned |= self.has["task_a"][self.corpus.row_of_window]
        if "task_b" in self.has:
            before = np.append(0, np.cumsum(self.has["task_b"]))[self.corpus.window_words]
            learned |= np.diff(before) > 0
        return np.flatnonzero(learned)

    def left_out(self) -> list[str]:
        """A warning about the rows of train that are not learned, if labels have no part in the loss."""
        used = len(np.unique(self.corpus.row_of_window[self.windows()]))
        if self.share < 1 or used == len(self.corpus):
            return []
        return [
            f"warning: distillation.share is 1: {len(self.corpus) - used:,} of {len(self.corpus):,} rows of "
            "train have no probabilities, and are not learned"
        ]

    def count(self, windows: np.ndarray, labelled: tuple[float, float]) -> tuple[float, float]:
        """The divisors of a step's losses: its labelled items and its soft targets, each by its share."""
        soft = {}
        if "task_a" in self.has:
            text, shares = text_shares(self.corpus, windows)
            soft["task_a"] = float(shares[self.has["task_a"][text]].sum())
        if "task_b" in self.has:
            soft["task_b"] = float(self.has["task_b"][word_positions(self.corpus, windows)[2]].sum())
        a, b = ((1 - self.share) * n + self.share * soft.get(task, 0) for task, n in zip(TASKS, labelled))
        return a, b

    def batch(self, windows: np.ndarray, rows: int, length: int) -> dict[str, Tensor]:
        """Windows (n,), at most `rows` → soft_task_a (rows, C) and soft_task_b (rows, length, K)."""
        batch = {}
        if "task_a" in self.has:
            values = self.values["task_a"]
            padded = np.zeros((rows, values.shape[1]), np.float32)
            padded[: len(windows)] = values[text_shares(self.corpus, windows)[0]]
            batch["soft_task_a"] = torch.from_numpy(padded)
        if "task_b" in self.has:
            values = self.values["task_b"]
            padded = np.zeros((rows, length, values.shape[1]), np.float32)
            row, position, words = word_positions(self.corpus, windows)
            padded[row, position] = values[words]
            batch["soft_task_b"] = torch.from_numpy(padded)
        return batch

    def mix(
        self,
        losses: tuple[Tensor, Tensor],
        output: MultiTaskOutput,
        batch: dict[str, Tensor],
        counts: Counts,
        transitions: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Add a batch's soft losses to those of its labels, each by its share.

        `counts`: from `count`; `transitions`: of a CRF."""
        targets = batch.get("soft_task_a"), batch.get("soft_task_b")
        soft = soft_loss(output, targets, counts, batch["weights_task_a"], self.temperature, transitions)
        a, b = (
            (1 - self.share) * loss + (0 if other is None else self.share * other)
            for loss, other in zip(losses, soft)
        )
        return a, b

    def compute(self, device: torch.device) -> None:
        """Compute the values, unless they are there. All processes must call it.

        They stay in memory or, if they are a model's and larger than `training.feature_memory` allows, in
        files under `cache_dir`. Raises InputError if the disk is too small."""
        if self.values:
            return
        cache_dir, memory = self.settings.cache_dir, self.settings.training.feature_memory
        installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        fits = self.size <= int(memory * installed) // distributed.world_size()
        if fits or cache_dir is None or self.teacher.folder is None:
            self.values = self._in_memory(device)
            return
        store, key = ArrayCache(cache_dir), self._key()
        with distributed.main_process_first():
            if (cached := store.load(key)) is None:
                check_disk_space(cache_dir, self.size, "the teacher's probabilities")
                with store.create(key) as writer:
                    files = {task: writer.array(task, np.float32, self.shapes[task]) for task in self.tasks}
                    self._fill(files, device, (0, len(self.corpus)))
                cached = store.load(key)
        assert cached is not None  # found, or just written
        self.values = {task: np.asarray(cached[task]) for task in self.tasks}

    def _in_memory(self, device: torch.device) -> dict[str, np.ndarray]:
        """The values; several processes compute a share each."""
        first, last = distributed.share_of_rows(len(self.corpus))
        words = self.corpus.word_rows
        sizes = {"task_a": last - first, "task_b": int(words[last] - words[first])}
        own = {task: np.zeros((sizes[task], self.shapes[task][1]), np.float32) for task in self.tasks}
        self._fill(own, device, (first, last))
        return {task: distributed.concatenate(array) for task, array in own.items()}

    def _fill(self, values: Mapping[str, np.ndarray], device: torch.device, rows: tuple[int, int]) -> None:
        """Write the soft targets of rows [first, last) and of their words into `values`."""
        done, hidden = dict.fromkeys(self.tasks, 0), distributed.disable_progress_bar()
        with tqdm(total=rows[1] - rows[0], desc="teacher, train", leave=False, disable=hidden) as bar:
            asked = self.teacher, self.settings, self.corpus, self.tasks, rows, device
            for part in teacher_probabilities(*asked, bar.update):
                for task, probabilities in part.items():
                    own = by_own_labels(self.teacher, self.labels, task, probabilities)
                    first, done[task] = done[task], done[task] + len(own)
                    values[task][first : done[task]] = soften(own, self.temperature)

    def _key(self) -> str:
        """A hash of all that the values depend on."""
        names = [*self.labels.classes, *self.labels.tags]
        assert self.teacher.folder  # what stands in rows is in memory already
        words = self.corpus.ids, self.corpus.word_first, self.corpus.word_rows
        precision = self.settings.training.precision
        facts = [folder_hash(self.teacher.folder), precision, *self.tasks, self.labels.scheme, *names]
        return digest(_FORMAT, self.temperature, *facts, *words)
