"""Train both heads, or one: python task_4.py [key=value ...] [--config FILE] [--check]"""

import argparse
import math
import sys
import time

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from model import MultiTaskTransformer, multitask_loss
from multitask.backbone import load_model
from multitask.batching import LengthGroupedSampler, collate, labelled_counts, usable_windows
from multitask.config import load_settings, split_overrides
from multitask.device import choose_device
from multitask.encoding import EncodedCorpus
from multitask.errors import InputError, run, say
from multitask.evaluation import table
from multitask.optimization import make_optimizer
from multitask.prediction import evaluate
from multitask.preparation import Prepared, describe, model_config, prepare, resolved
from multitask.run_folder import RunFolder, check_output_dir, epoch_line
from multitask.settings import TASKS, Settings, help_text, trained_tasks


def main() -> None:
    arguments, overrides = parse(sys.argv[1:])
    settings = load_settings(arguments.config, overrides)
    check_output_dir(settings.output_dir)
    device = choose_device(settings.device)
    prepared = prepare(settings)
    if arguments.check:
        print(describe(prepared))
        return
    print(f"Using device: {device}")
    model = build(prepared, settings).to(device)
    folder = RunFolder(resolved(settings, prepared, str(device)), prepared.backbone.folder)
    try:
        train(model, prepared, settings, folder)
    except KeyboardInterrupt:
        done = folder.model.exists()
        say(f"the best model so far is in {folder.model}" if done else "no epoch was finished")
        raise
    if "test" in prepared.corpora:
        model = load_model(MultiTaskTransformer, folder.model).to(device)
        scores = evaluate(model, prepared.corpora["test"], prepared.labels, trained_tasks(settings))
        folder.log({"test": scores.headline()})
        print(f"Test, with the best model\n{table(scores)}")
    print(f"Run folder: {folder.path}")


def parse(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command line → options and overrides, in any order."""
    overrides, rest = split_overrides(words)
    parser = argparse.ArgumentParser(
        usage="python task_4.py [key=value ...] [--config FILE] [--check]",
        description="Train the model that config.yml describes.",
        epilog=f"keys of config.yml, with their defaults; key=value sets one for this run:\n\n{help_text()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", default="config.yml", metavar="FILE", help="settings (config.yml)")
    parser.add_argument("--check", action="store_true", help="check settings and data, print what is there")
    return parser.parse_args(rest), overrides


def build(prepared: Prepared, settings: Settings) -> MultiTaskTransformer:
    """The encoder with the run's heads: new ones, or those that the starting model brings."""
    torch.manual_seed(settings.training.seed)
    fields = model_config(settings, prepared)
    model = load_model(MultiTaskTransformer, prepared.backbone.folder, ignore_mismatched_sizes=True, **fields)
    model.reset(**dict.fromkeys(prepared.new_heads, True))
    return model


def train(model: MultiTaskTransformer, prepared: Prepared, settings: Settings, folder: RunFolder) -> None:
    """All epochs. Then the folder holds the model with the best dev score, or the last one without dev."""
    m, t, tasks = settings.model, settings.training, trained_tasks(settings)
    corpus, dev_corpus = prepared.corpora["train"], prepared.corpora.get("dev")
    model.freeze(
        backbone=m.freeze_backbone,
        task_a=m.freeze_task_a or "task_a" not in tasks,
        task_b=m.freeze_task_b or "task_b" not in tasks,
        layers=m.freeze_layers,
    )
    windows = usable_windows(corpus, tasks)
    sentences = len(np.unique(corpus.row_of_window[windows]))
    lengths = corpus.window_lengths[windows]
    sampler = LengthGroupedSampler(lengths, t.batch_size * t.gradient_accumulation, t.seed)
    optimizer, schedule = make_optimizer(model, t, len(sampler) * t.num_epochs)
    best, without_gain = -math.inf, 0
    for epoch in range(1, t.num_epochs + 1):
        model.train()
        started, sums = time.perf_counter(), np.zeros((2, 2))
        for batch in (progress := tqdm(sampler.batches(epoch), f"epoch {epoch}", leave=False, disable=None)):
            sums += train_step(model, corpus, windows[batch], optimizer, settings)
            schedule.step()
            progress.set_postfix(loss=f"{mean_loss(sums, settings)['loss']:.4f}")
        seconds = time.perf_counter() - started
        dev = evaluate(model, dev_corpus, prepared.labels, tasks) if dev_corpus is not None else None
        metrics = {
            "epoch": epoch,
            "step": epoch * len(sampler),
            "seconds": round(seconds, 3),
            "sentences_per_second": round(sentences / seconds, 1),
            **mean_loss(sums, settings),
            "dev": dev.headline() if dev else None,
        }
        if not math.isfinite(metrics["loss"]):
            raise InputError(f"epoch {epoch}: the loss is {metrics['loss']}; a lower rate may help")
        folder.log(metrics)
        print(epoch_line(metrics, t.num_epochs), flush=True)
        without_gain += 1
        if dev is None or dev.mean() > best:
            best, without_gain = dev.mean() if dev else best, 0
            folder.save(model)
        if without_gain == t.early_stopping:
            print(f"Stopping early: {without_gain} epochs without a better dev score")
            return


def train_step(
    model: MultiTaskTransformer,
    corpus: EncodedCorpus,
    windows: np.ndarray,
    optimizer: torch.optim.Optimizer,
    settings: Settings,
) -> np.ndarray:
    """One update over `windows`, in micro-batches. Returns loss sums and counts (2, 2), a column a task.

    Both losses are divided by the counts of the whole step, so that its micro-batches give the gradient that
    one large batch would give."""
    t, tasks = settings.training, trained_tasks(settings)
    counts = labelled_counts(corpus, windows)
    losses = torch.zeros(2, device=model.device)
    for at in range(0, len(windows), t.batch_size):
        batch = collate(corpus, windows[at : at + t.batch_size])
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        output = model(batch["input_ids"], batch["attention_mask"])
        task_losses = multitask_loss(
            output, batch["labels_task_a"], batch["labels_task_b"], *counts, batch["weights_task_a"]
        )
        weighted = {task: getattr(t.loss_weights, task) * loss for task, loss in zip(TASKS, task_losses)}
        sum(weighted[task] for task in tasks).backward()
        losses += torch.stack(task_losses).detach()
    if t.max_grad_norm is not None:
        clip_grad_norm_(model.parameters(), t.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    return np.array([losses.tolist(), (1, 1)]) * counts


def mean_loss(sums: np.ndarray, settings: Settings) -> dict[str, float | None]:
    """Loss sums and counts (2, 2) → each trained task's mean per labelled item, and their weighted sum."""
    weights, tasks = settings.training.loss_weights, trained_tasks(settings)
    means = {task: float(total / count) if count else 0.0 for task, (total, count) in zip(TASKS, sums.T)}
    loss = sum(getattr(weights, task) * means[task] for task in tasks)
    return {"loss": loss, **{f"loss_{task}": means[task] if task in tasks else None for task in TASKS}}


if __name__ == "__main__":
    run(main)
