"""The trainer: a configured model, its optimizer, its batches, and what is computed in a step."""

import contextlib
import logging
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from model import MultiTaskTransformer
from multitask.common import distributed
from multitask.common.device import (
    choose_attention,
    choose_precision,
    float32_products,
    out_of_memory,
    sum_type,
    use_threads,
)
from multitask.common.errors import InputError
from multitask.config.schema import Settings, trained_tasks
from multitask.data.batching import LengthGroupedSampler, annotated_windows, collate, places_of_windows
from multitask.data.labels import TASKS, UNLABELLED
from multitask.evaluation.evaluate import evaluate
from multitask.evaluation.metrics import Scores
from multitask.inference.torch_runner import TorchRunner
from multitask.speedups.frozen_features import FrozenFeatures, features_with_progress
from multitask.speedups.graph_cache import CaptureError
from multitask.speedups.graphed_step import GraphedStep
from multitask.training.graphs import drop_graphs
from multitask.training.loss_weighting import Counts, LossWeighting, gradient_cosine
from multitask.training.optimizer import Diverged, LossScale, OptimizerStep, make_optimizer, rates_used
from multitask.training.preparation import Prepared, configure_model
from multitask.training.progress import Progress, load_state_dict, state_dict

logger = logging.getLogger(__name__)


class Trainer:
    """A model on its device, configured for training, and everything that its steps need."""

    state_dict, load_state_dict = state_dict, load_state_dict

    def __init__(self, model: MultiTaskTransformer, prepared: Prepared, settings: Settings):
        t = settings.training
        self.model, self.prepared, self.settings = model, prepared, settings
        self.tasks, self.device = trained_tasks(settings), model.device
        self.corpus, self.dev = prepared.corpora["train"], prepared.corpora.get("dev")
        self.precision = choose_precision(t.precision, self.device)
        attentions = model.config.family.attentions
        self.attention = choose_attention(settings.model.attention, self.device, self.precision, attentions)
        configure_model(model, self.corpus, settings, self.attention)
        self.depth = model.frozen_depth if t.cache_features else 0
        self.features: dict[str, FrozenFeatures] = {}
        self.soft = prepared.soft
        self.windows = self.soft.windows() if self.soft else annotated_windows(self.corpus, self.tasks)
        self.sentences = len(np.unique(self.corpus.row_of_window[self.windows]))
        self.sampler = LengthGroupedSampler(
            self.corpus.window_lengths[self.windows],
            t.batch_size * t.gradient_accumulation * distributed.world_size(),
            t.seed,
            self.corpus.file_of_row[self.corpus.row_of_window[self.windows]],
            settings.data.sampling_temperature,
        )
        self.weighting = LossWeighting(t, self.tasks).to(self.device)
        weights = {k: torch.from_numpy(w).to(self.device) for k, w in prepared.class_weights.items()}
        self.class_weights = [weights.get(task) for task in TASKS]
        extra = self.weighting.parameters()
        optimizer, schedule = make_optimizer(model, t, len(self.sampler) * t.num_epochs, extra)
        scale = LossScale(self.device) if self.precision == torch.float16 else None
        self.optimizer_step = OptimizerStep(optimizer, schedule, t.max_grad_norm, scale)
        self.forward = distributed.wrap_ddp(model, self.device)
        self.progress, self.micro_batch = Progress(), t.batch_size
        self.best: dict[str, Tensor] = {}  # the learned tensors of the best epoch
        self.best_checksum: str | None = None  # SHA-256 of the best model's file of weights
        self.recorded = torch.zeros(2, 2, dtype=sum_type(self.device), device=self.device)
        self.sums, self.cosines = self.recorded.unbind()  # of losses; of gradients, and their number
        self.labelled = np.zeros(2)
        self.graphs: GraphedStep | None = None
        torch.manual_seed(t.seed + distributed.rank())

    @property
    def steps(self) -> int:
        """Steps taken since the beginning of the run."""
        return (self.progress.epoch - 1) * len(self.sampler) + self.progress.step

    def batches(self) -> Iterator[np.ndarray]:
        """The windows of each remaining step of the epoch, for all processes together."""
        steps = self.sampler.batches(self.progress.epoch)[self.progress.step :]
        for number, batch in enumerate(steps, 1):
            if self.graphs and number < len(steps):
                self.graphs.prefetch(self.micro_batches(self.windows[steps[number]]), self.micro_batch)
            yield self.windows[batch]

    def micro_batches(self, windows: np.ndarray) -> list[np.ndarray]:
        """This process's share of a step's windows, in micro-batches. An empty share is one empty batch."""
        size = self.micro_batch
        share = windows[distributed.rank() :: distributed.world_size()]  # longest first: equal shares
        return [share[start : start + size] for start in range(0, max(1, len(share)), size)]

    def count_micro_batches(self, windows: np.ndarray) -> int:
        """The number of micro-batches of a step, over all processes."""
        count, size = distributed.world_size(), self.micro_batch
        return sum(max(1, -(-len(windows[rank::count]) // size)) for rank in range(count))

    def retry_smaller_on_oom(self, compute_gradients: Callable[[], None], windows: np.ndarray) -> None:
        """Call `compute_gradients`; if memory runs out, halve the micro-batches and call it again. The step
        and its loss stay the same.

        Raises InputError if a single window does not fit, or if there are other processes, which wait."""
        while True:
            recorded = self.recorded.clone()
            try:
                return compute_gradients()
            except CaptureError as error:
                drop_graphs(self, error)
                captured = False
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                captured = True
            # after the except block, because the error holds the tensors of the forward pass
            self.recorded.copy_(recorded)
            self.optimizer_step.drop_gradients()
            if not captured:
                continue
            if self.graphs:
                self.graphs.clear()
            size = max(map(len, self.micro_batches(windows)))
            if size == 1 or distributed.world_size() > 1:
                hint = "lower model.max_length" if size == 1 else "lower training.batch_size"
                raise InputError(
                    f"step {self.steps + 1}: out of memory with micro-batches of {size}: {hint}, or set "
                    f"training.gradient_checkpointing. Rows of this step: {self.describe_rows(windows)}"
                )
            self.micro_batch = -(-size // 2)
            logger.warning(
                f"step {self.steps + 1}: out of memory with micro-batches of {size}; continuing with "
                f"{self.micro_batch}, and with as many rows per step as before"
            )

    def raise_if_not_finite(self) -> None:
        """Raises Diverged if a step was skipped because it was not finite. Waits for the device."""
        if step := self.optimizer_step.first_skipped_step():
            epoch, number = divmod(step - 1, len(self.sampler))
            windows = self.windows[self.sampler.batches(epoch + 1)[number]]
            rates = rates_used(self.model, self.settings)
            raise Diverged(step, rates, self.precision, self.describe_rows(windows))

    def describe_rows(self, windows: np.ndarray) -> str:
        """The places of the rows of windows (B,), as file:line, line, ...; file:line, ..."""
        return places_of_windows(self.corpus, windows, self.settings.data.train)

    def batch(self, windows: np.ndarray, step: np.ndarray) -> dict[str, Tensor]:
        """The tensors of a micro-batch on the device, with `hidden` instead of `input_ids` where layers are
        frozen. An empty one repeats a window of its step without labels: its losses are 0."""
        empty = len(windows) == 0
        windows = step[:1] if empty else windows
        batch = collate(self.corpus, windows)
        for task in TASKS:
            if empty or task not in self.tasks:  # the head of an untrained task may not know these labels
                batch[f"labels_{task}"].fill_(UNLABELLED)
        if self.soft:
            batch |= self.soft.batch(windows[: 0 if empty else None], *batch["attention_mask"].shape)
        if features := self.features_for("train"):
            batch["hidden"] = features.batch(windows)
            del batch["input_ids"]
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def features_for(self, split: str) -> FrozenFeatures | None:
        """The frozen layers' output for a split, computed at the first call; None where none is frozen."""
        if self.depth and split not in self.features:
            corpus, title = self.prepared.corpora[split], f"frozen layers, {split}"
            with self.evaluation_attention():
                self.features[split] = features_with_progress(
                    self.model, corpus, self.depth, self.precision, self.settings, title
                )
        return self.features.get(split)

    @contextlib.contextmanager
    def stepping(self) -> Iterator[None]:
        """Context of all steps: TF32 if wanted, and one thread where only heads train on a CPU. Waiting for a
        second one takes longer than its work (6 ms per step; 20 to 140 with two on a busy machine)."""
        only_heads = self.device.type == "cpu" and self.depth == self.model.config.num_hidden_layers
        tf32 = self.settings.training.precision == "tf32"
        with use_threads(1 if only_heads else None), float32_products(tf32):
            yield

    def evaluate(self) -> Scores | None:
        """The scores on dev; None without dev."""
        if self.dev is None:
            return None
        features = self.features_for("dev")
        with self.evaluation_attention():
            runner = TorchRunner(self.model, features, self.precision)
            weights = self.prepared.selection.loss_weights
            return evaluate(runner, self.dev, self.prepared.labels, self.tasks, weights)

    @contextlib.contextmanager
    def evaluation_attention(self) -> Iterator[None]:
        """Use fused attention: without gradients it is the faster one, even where it is not in training."""
        if self.settings.model.attention == "auto":
            self.model.set_attn_implementation(self.model.config.family.attentions[-1])
        try:
            yield
        finally:
            self.model.set_attn_implementation(self.attention)

    def reset_losses(self) -> None:
        """Forget the recorded losses, at the beginning of an epoch."""
        self.recorded.zero_()
        self.labelled = np.zeros(2)

    def record_losses(self, losses: dict[str, Tensor], counts: Counts) -> None:
        """Record a micro-batch's losses, before its backward pass. Does not wait for the device."""
        for number, (task, count) in enumerate(zip(TASKS, counts)):
            if task in losses:
                self.sums[number] += losses[task].detach() * count
        if self.settings.training.gradient_cosine:
            shared = [p for p in self.model.base_model.parameters() if p.requires_grad]
            scaled = {task: self.optimizer_step.scaled(loss) for task, loss in losses.items()}
            self.cosines += torch.stack([gradient_cosine(scaled, shared), self.cosines.new_ones(())])

    def step(self, counts: tuple[float, float]) -> None:
        """Take a step with the gradients; `counts` are its labelled items (A, B) of all processes."""
        for parameter in self.weighting.parameters():  # the losses were scaled for an average over processes
            if parameter.grad is not None:
                distributed.all_reduce(parameter.grad).div_(distributed.world_size())
        self.optimizer_step(self.graphs.step if self.graphs else None)
        self.labelled += counts

    def losses(self) -> dict:
        """The mean loss per labelled item of each trained task since `reset_losses`, their weighted sum, the
        weights where they change, and the mean gradient cosine over micro-batches where it is measured.

        Waits for the device. Raises InputError if a step was not finite."""
        self.raise_if_not_finite()
        sums, (cosine, measured) = distributed.all_reduce(self.recorded.clone()).tolist()
        means = {task: s / n if n else 0.0 for task, s, n in zip(TASKS, sums, self.labelled)}
        weights = self.weighting.weights()
        loss = sum(weights[task] * means[task] for task in self.tasks)
        result = {"loss": loss, **{f"loss_{t}": means[t] if t in self.tasks else None for t in TASKS}}
        if self.weighting.rule != "fixed":
            result["loss_weights"] = weights
        if measured:
            result["gradient_cosine"] = cosine / measured
        if scale := self.optimizer_step.loss_scale:
            result |= {"loss_scale": float(scale.factor), "overflows": int(scale.overflows)}
        return result
