"""Train both heads, or one: python task_4.py [key=value ...] [--config FILE] [--check]"""

import argparse
import math
import sys
import time

import numpy as np
import torch
from tqdm import tqdm

from model import MultiTaskTransformer, multitask_loss
from multitask import processes
from multitask.backbone import load_model
from multitask.batching import labelled_counts
from multitask.config import load_settings, split_overrides
from multitask.config_text import help_text
from multitask.device import autocast
from multitask.errors import run as run_task
from multitask.errors import say
from multitask.evaluation import Scores, table
from multitask.lora import merged
from multitask.prediction import evaluate
from multitask.preparation import Prepared, describe, model_config, prepare, resolved
from multitask.run_folder import RunFolder, check_output_dir, epoch_line
from multitask.settings import TASKS, Settings, trained_tasks
from multitask.training import Training

READ_EVERY = 50  # steps: reading a loss makes the CPU wait for the device


def main() -> None:
    arguments, overrides = parse(sys.argv[1:])
    settings = load_settings(arguments.config, overrides)
    check_output_dir(settings.output_dir)
    device = processes.join(settings.device)
    with processes.first_goes_first():
        prepared = prepare(settings)
    if arguments.check:
        print(describe(prepared))
        return
    print(f"Using device: {device}")
    run = Training(build(prepared, settings).to(device), prepared, settings)
    folder = None
    if processes.rank() == 0:
        folder = RunFolder(resolved(settings, prepared, str(device)), prepared.backbone.folder)
    try:
        train(run, folder)
    except KeyboardInterrupt:
        done = folder and folder.model.exists()
        say(f"the best model so far is in {folder.model}" if done else "no epoch was finished")
        raise
    del run  # the best model takes its place
    if "test" in prepared.corpora:
        scores = test(prepared, settings, folder, device)
        print(f"Test, with the best model\n{table(scores)}")
    print(f"Run folder: {folder.path if folder else ''}")
    processes.leave()


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


def train(run: Training, folder: RunFolder | None) -> None:
    """All epochs. Then the folder holds the model with the best dev score, or the last one without dev."""
    t = run.settings.training
    best, without_gain = -math.inf, 0
    for epoch in range(1, t.num_epochs + 1):
        run.model.train()
        run.restart()
        started = time.perf_counter()
        run.frozen("train")
        bar = tqdm(
            run.batches(epoch), f"epoch {epoch}", len(run.sampler), leave=False, disable=processes.no_bar()
        )
        with run.threads():
            for step, windows in enumerate(bar, 1):
                train_step(run, windows)
                if step % READ_EVERY == 0:
                    bar.set_postfix(loss=f"{run.losses()['loss']:.4f}")
        losses = run.losses()
        seconds = time.perf_counter() - started
        dev = run.evaluate()
        metrics = {
            "epoch": epoch,
            "step": epoch * len(run.sampler),
            "seconds": round(seconds, 3),
            "sentences_per_second": round(run.sentences / seconds, 1),
            **losses,
            "dev": dev.headline() if dev else None,
        }
        run.weighting.end_epoch({task: losses[f"loss_{task}"] for task in run.tasks})
        print(epoch_line(metrics, t.num_epochs), flush=True)
        without_gain += 1
        better = dev is None or dev.mean() > best
        if better:
            best, without_gain = dev.mean() if dev else best, 0
        if folder:
            folder.log(metrics)
            if better:
                folder.save(merged(run.model))
        if without_gain == t.early_stopping:
            print(f"Stopping early: {without_gain} epochs without a better dev score")
            return


def train_step(run: Training, windows: np.ndarray) -> None:
    """One update over `windows`, in micro-batches, of which each process has its part.

    Both losses are divided by the counts of the whole step, so that its micro-batches give the gradient that
    one large batch would give."""
    counts = labelled_counts(run.corpus, windows)
    parts, share = run.micro_batches(windows), 1 / run.calls(windows)
    for number, part in enumerate(parts, 1):
        batch = run.batch(part, windows)
        with processes.gradients_kept(run.forward, last=number == len(parts)):
            with autocast(run.device, run.precision):
                output = run.forward(
                    batch.get("input_ids"), batch["attention_mask"], batch.get("hidden"), run.depth
                )
            both = multitask_loss(
                output, batch["labels_task_a"], batch["labels_task_b"], *counts, batch["weights_task_a"]
            )
            losses = {task: loss for task, loss in zip(TASKS, both) if task in run.tasks}
            run.note(losses, counts)
            # gradients are averaged over the processes, and a sum is wanted
            (run.weighting(losses, share) * processes.count()).backward()
    run.step(counts)


def test(prepared: Prepared, settings: Settings, folder: RunFolder | None, device: torch.device) -> Scores:
    """Scores of the best model on the test set, logged."""
    if folder:
        model = load_model(MultiTaskTransformer, folder.model).to(device)
    else:
        model = build(prepared, settings).to(device)
    processes.same_weights(model)
    scores = evaluate(model, prepared.corpora["test"], prepared.labels, trained_tasks(settings))
    if folder:
        folder.log({"test": scores.headline()})
    return scores


if __name__ == "__main__":
    run_task(main)
