"""What a run trains with: the model made ready, the optimizer, the order of the batches and their tensors."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from multitask.common import distributed
from multitask.common.device import choose_attention, choose_precision, out_of_memory
from multitask.common.errors import InputError
from multitask.config.schema import Settings, trained_tasks
from multitask.data.batching import LengthGroupedSampler, annotated_windows, collate
from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import TASKS, UNLABELLED
from multitask.encoders.lora import add_lora
from multitask.evaluation.evaluate import evaluate
from multitask.evaluation.metrics import Scores
from multitask.inference.torch_runner import TorchRunner
from multitask.training.embedding_rows import train_occurring_rows
from multitask.training.fast_dropout import use_fast_dropout
from multitask.training.frozen_features import FrozenFeatures
from multitask.training.loss_weighting import LossWeighting, gradient_cosine
from multitask.training.optimizer import OptimizerStep, make_optimizer
from multitask.training.preparation import Prepared
from multitask.training.progress import Progress

logger = logging.getLogger(__name__)


class Trainer:
    """A model in training, and what its steps need."""

    def __init__(self, model, prepared: Prepared, settings: Settings):
        t = settings.training
        self.model, self.prepared, self.settings = model, prepared, settings
        self.tasks, self.device = trained_tasks(settings), model.device
        self.corpus, self.dev = prepared.corpora["train"], prepared.corpora.get("dev")
        self.precision = choose_precision(t.precision, self.device)
        self.attention = choose_attention(settings.model.attention, self.device, self.precision)
        configure_model(model, self.corpus, settings, self.attention)
        self.depth = model.frozen_depth if t.cache_features else 0
        self.features: dict[str, FrozenFeatures] = {}
        self.windows = annotated_windows(self.corpus, self.tasks)
        self.sentences = len(np.unique(self.corpus.row_of_window[self.windows]))
        self.sampler = LengthGroupedSampler(
            self.corpus.window_lengths[self.windows],
            t.batch_size * t.gradient_accumulation * distributed.world_size(),
            t.seed,
            self.corpus.file_of_row[self.corpus.row_of_window[self.windows]],
            settings.data.sampling_temperature,
        )
        self.weighting = LossWeighting(t, self.tasks).to(self.device)
        extra = self.weighting.parameters()
        optimizer, schedule = make_optimizer(model, t, len(self.sampler) * t.num_epochs, extra)
        self.update = OptimizerStep(optimizer, schedule, t.max_grad_norm)
        self.forward = distributed.wrap_ddp(model, self.device)
        self.progress, self.micro_batch = Progress(), t.batch_size
        self.best: dict[str, Tensor] = {}  # what was learned by the model that is kept
        self.best_weights: str | None = None  # SHA-256 of its file
        self.restart()
        torch.manual_seed(t.seed + distributed.rank())

    @property
    def steps(self) -> int:
        """Steps that were taken since the beginning."""
        return (self.progress.epoch - 1) * len(self.sampler) + self.progress.step

    def batches(self) -> Iterator[np.ndarray]:
        """The windows of each step of the epoch that is left, all processes' together."""
        for batch in self.sampler.batches(self.progress.epoch)[self.progress.step :]:
            yield self.windows[batch]

    def micro_batches(self, windows: np.ndarray) -> list[np.ndarray]:
        """This process's part of a step's windows, in batches. A part that is empty is one batch of none."""
        size = self.micro_batch
        part = windows[distributed.rank() :: distributed.world_size()]  # longest first: equal shares
        return [part[at : at + size] for at in range(0, max(1, len(part)), size)]

    def calls(self, windows: np.ndarray) -> int:
        """How many micro-batches a step has in all processes."""
        count, size = distributed.world_size(), self.micro_batch
        return sum(max(1, -(-len(windows[rank::count]) // size)) for rank in range(count))

    def retry_smaller_on_oom(self, gradients: Callable[[], None], windows: np.ndarray) -> None:
        """Call what computes a step's gradients, and where memory does not suffice again in micro-batches of
        half the size: the step and its loss stay the same.

        Raises InputError where one window does not fit, or where there are other processes, which wait."""
        while True:
            sums, cosines = self.sums.clone(), self.cosines.clone()
            try:
                return gradients()
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            # behind the block, since the error holds on to the tensors of the pass
            self.update.optimizer.zero_grad()
            self.sums, self.cosines = sums, cosines
            size = max(map(len, self.micro_batches(windows)))
            if size == 1 or distributed.world_size() > 1:
                hint = "lower model.max_length" if size == 1 else "lower training.batch_size"
                raise InputError(
                    f"step {self.steps + 1}: out of memory with {size} rows in a pass: {hint}, or set "
                    f"training.gradient_checkpointing. Its rows: {self.rows_of(windows)}"
                )
            self.micro_batch = -(-size // 2)
            logger.warning(
                f"step {self.steps + 1}: out of memory with {size} sentences in a pass; going on with "
                f"{self.micro_batch}, and with as many in a step as before"
            )

    def check(self) -> None:
        """Wait for the device. Raises InputError if a step was refused, with the rows of its batch."""
        if step := self.update.first_refused_step():
            epoch, number = divmod(step - 1, len(self.sampler))
            windows = self.windows[self.sampler.batches(epoch + 1)[number]]
            raise InputError(
                f"step {step}: the loss or a gradient is not finite, so it was not taken. A lower "
                "training.learning_rate may help, or training.precision=fp32. "
                f"Its rows: {self.rows_of(windows)}"
            )

    def rows_of(self, windows: np.ndarray) -> str:
        """Where the rows of windows (B,) stand, as file:line, line, ...; file:line, ..."""
        rows = np.unique(self.corpus.row_of_window[windows])
        files, lines = self.corpus.file_of_row[rows], self.corpus.row_lines[rows]
        paths = self.settings.data.train
        return "; ".join(f"{paths[f]}:{', '.join(map(str, lines[files == f]))}" for f in np.unique(files))

    def batch(self, windows: np.ndarray, step: np.ndarray) -> dict[str, Tensor]:
        """The tensors of a micro-batch on the device, `hidden` in the place of `input_ids` where layers are
        frozen. One without windows repeats one of its step's without labels: its losses are 0."""
        empty = len(windows) == 0
        windows = step[:1] if empty else windows
        batch = collate(self.corpus, windows)
        for task in TASKS:
            if empty or task not in self.tasks:  # whose labels need not be those that the head knows
                batch[f"labels_{task}"].fill_(UNLABELLED)
        if self.depth:
            batch["hidden"] = self.frozen("train").batch(windows)
            del batch["input_ids"]
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def frozen(self, split: str) -> FrozenFeatures | None:
        """What the frozen layers give for a split, computed when it is first asked for."""
        if self.depth and split not in self.features:
            corpus, t = self.prepared.corpora[split], self.settings.training
            installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            memory, folder = (
                int(t.feature_memory * installed) // distributed.world_size(),
                self.settings.cache_dir,
            )
            bar = tqdm(
                total=len(corpus.window_start),
                desc=f"frozen layers, {split}",
                leave=False,
                disable=distributed.disable_progress_bar(),
            )
            with bar, self.evaluating():
                self.features[split] = FrozenFeatures(
                    self.model, corpus, self.depth, self.precision, memory, folder, bar.update
                )
        return self.features.get(split)

    @contextlib.contextmanager
    def threads(self) -> Iterator[None]:
        """One thread where only heads train on a CPU: their products are so small that a second one is waited
        for longer than it works (6 ms a step, and 20 to 140 with two, when others were on the machine)."""
        before = torch.get_num_threads()
        if self.device.type == "cpu" and self.depth == self.model.config.num_hidden_layers:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def evaluate(self) -> Scores | None:
        """Scores on dev, if there is one."""
        if self.dev is None:
            return None
        features = self.frozen("dev")
        with self.evaluating():
            runner = TorchRunner(self.model, features, self.precision)
            return evaluate(runner, self.dev, self.prepared.labels, self.tasks)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Without gradients the fused attention is the faster one, also where it is not in training."""
        if self.settings.model.attention == "auto":
            self.model.set_attn_implementation("sdpa")
        try:
            yield
        finally:
            self.model.set_attn_implementation(self.attention)

    def restart(self) -> None:
        """Begin to count the losses of an epoch."""
        self.sums, self.cosines = torch.zeros(2, 2, dtype=torch.float64, device=self.device)
        self.labelled = np.zeros(2)

    def note(self, losses: dict[str, Tensor], counts: tuple[float, float]) -> None:
        """Count a micro-batch's losses, before its backward pass, without waiting for them."""
        for at, (task, count) in enumerate(zip(TASKS, counts)):
            if task in losses:
                self.sums[at] += losses[task].detach() * count
        if self.settings.training.gradient_cosine:
            shared = [p for p in self.model.bert.parameters() if p.requires_grad]
            self.cosines += torch.stack([gradient_cosine(losses, shared), self.cosines.new_ones(())])

    def step(self, counts: tuple[float, float]) -> None:
        """Take the step whose gradients are there; `counts` are its labelled items, of all processes."""
        for parameter in self.weighting.parameters():  # the losses were scaled for an average over processes
            distributed.all_reduce(parameter.grad).div_(distributed.world_size())
        self.update()
        self.labelled += counts

    def losses(self) -> dict:
        """Each trained task's mean loss per labelled item since `restart`, and their weighted sum; the
        weights where they move; the mean over micro-batches of the gradients' cosine where it is asked for.

        Waits for the device. Raises InputError if a step was not finite."""
        self.check()
        sums, (cosine, measured) = distributed.all_reduce(torch.stack([self.sums, self.cosines])).tolist()
        means = {task: s / n if n else 0.0 for task, s, n in zip(TASKS, sums, self.labelled)}
        weights = self.weighting.weights()
        loss = sum(weights[task] * means[task] for task in self.tasks)
        found = {"loss": loss, **{f"loss_{t}": means[t] if t in self.tasks else None for t in TASKS}}
        if self.weighting.rule != "fixed":
            found["loss_weights"] = weights
        return {**found, "gradient_cosine": cosine / measured} if measured else found


def configure_model(model, corpus: EncodedCorpus, settings: Settings, attention: str) -> None:
    """Freeze what the settings freeze, and change what computes, not what is computed."""
    m, t, tasks = settings.model, settings.training, trained_tasks(settings)
    model.freeze(
        backbone=m.freeze_backbone,
        task_a=m.freeze_task_a or "task_a" not in tasks,
        task_b=m.freeze_task_b or "task_b" not in tasks,
        layers=m.freeze_layers,
    )
    if m.lora.rank:
        add_lora(model, m.lora)
    if t.occurring_rows:
        train_occurring_rows(model, np.concatenate([np.unique(corpus.ids), corpus.special]))
    if t.fast_dropout and model.device.type == "cpu":
        use_fast_dropout(model)
    if t.gradient_checkpointing:
        model.recompute_activations()
    model.set_attn_implementation(attention)
