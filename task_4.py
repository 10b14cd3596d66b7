"""Train both heads, or one: python task_4.py [key=value ...] [--config FILE] [--resume [RUN] | --search N]"""

from multitask.common.device import prepare_threads

if __name__ == "__main__":
    prepare_threads()  # before torch is imported

import argparse
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from model import MultiTaskTransformer, multitask_loss
from multitask.common import distributed
from multitask.common.device import autocast
from multitask.common.shell import run_script
from multitask.common.signals import StoppedBySignal, StopSignals
from multitask.config.help_text import help_text
from multitask.config.loading import load_settings, split_overrides
from multitask.config.schema import Settings
from multitask.data.batching import count_labels
from multitask.data.labels import TASKS
from multitask.encoders.lora import merge_lora
from multitask.encoders.pretrained import load_model
from multitask.encoders.saving import loaders
from multitask.evaluation.metrics import Scores, scores_table
from multitask.inference.torch_runner import TorchRunner
from multitask.plan.added_labels import fit_new_classes, keep_rows
from multitask.search.runs import search_settings
from multitask.search.study import AfterEpoch
from multitask.training.existing_runs import (
    CONFIG,
    RUNS,
    check_latest,
    check_output_dir,
    enter_start_folder,
    find_run,
    is_finished,
    run_settings,
)
from multitask.training.finishing import finish
from multitask.training.graphs import drop_graphs, use_graphs
from multitask.training.loss_weighting import Counts
from multitask.training.optimizer import finite_or_nan
from multitask.training.preparation import Prepared, describe, model_config_fields, prepare
from multitask.training.progress import copy_learned_tensors, epoch_line
from multitask.training.resume import check_finished
from multitask.training.run_folder import RunFolder, open_run_folder, resume_hint_on_failure, save_checkpoint
from multitask.training.trainer import Trainer

READ_EVERY = 50  # steps, because reading a loss makes the CPU wait for the device


def main() -> None:
    arguments, overrides = parse(sys.argv[1:])
    old = None if arguments.resume is None else find_run(arguments.resume, RUNS)
    if old:
        arguments.config = arguments.config and str(Path(arguments.config).absolute())
        old = enter_start_folder(old)
        check_latest(old)
    if old and not arguments.config:
        settings = run_settings(old, overrides)
    else:
        settings = load_settings(arguments.config or CONFIG, overrides)
    if arguments.search:
        fixed = [override.partition("=")[0] for override in overrides]
        search_settings(settings, fixed, arguments.search, build, train)
        return
    if old is None:
        check_output_dir(settings.output_dir)
    device = distributed.init_processes(settings.device)
    if old and is_finished(old):
        check_finished(old, overrides)
        print(f"{old} is finished: there is nothing to resume")
        return
    with distributed.main_process_first():
        prepared = prepare(settings)
    if arguments.check:
        print(describe(prepared))
        return
    print(f"Using device: {device}")
    model = build(prepared, settings).to(device)
    trainer = Trainer(model, prepared, settings)
    folder = open_run_folder(trainer, old)
    with resume_hint_on_failure(folder), distributed.lost_process_as_error(), StopSignals() as stop:
        train(trainer, folder, stop)
        progress = trainer.progress
        del trainer, model  # makes room for the best model
        best = load_model(MultiTaskTransformer, folder.model) if folder else build(prepared, settings)
        scores = finish(best.to(device), prepared, settings, folder, progress, stop)
    if scores:
        print(f"Test, with the best model\n{scores_table(scores)}")
    if folder:
        print(f"Run folder: {folder.path}\nModel: {folder.model} ({loaders(prepared.heads.token_head)})")
        print(f"Report: {folder.report}")


def parse(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command line, in any order → options and overrides."""
    overrides, rest = split_overrides(words)
    parser = argparse.ArgumentParser(
        usage="python task_4.py [key=value ...] [--config FILE] [--resume [RUN] | --search N] [--check]",
        description="Train the model that config.yml describes.",
        epilog=f"keys of config.yml, with their defaults; key=value sets one for this run:\n\n{help_text()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", metavar="FILE", help="settings (default: config.yml, or those of the resumed run)"
    )
    parser.add_argument(
        "--resume", nargs="?", const="", metavar="RUN", help="resume a stopped run (default: the newest)"
    )
    parser.add_argument("--check", action="store_true", help="check settings and data, print a summary")
    parser.add_argument(
        "--search",
        type=int,
        metavar="N",
        help="search for better settings in N runs; key=value stays as it is",
    )
    arguments = parser.parse_args(rest)
    alone = arguments.resume is None and not arguments.check
    if arguments.search is not None and (arguments.search < 1 or not alone):
        parser.error("--search needs a number of 1 or more, and goes with neither --resume nor --check")
    return arguments, overrides


def build(prepared: Prepared, settings: Settings) -> MultiTaskTransformer:
    """The encoder with the run's heads: new ones, or those of the starting model."""
    torch.manual_seed(settings.training.seed)
    fields = model_config_fields(settings, prepared)
    keep = settings.model.keep_layers
    model = load_model(MultiTaskTransformer, prepared.backbone.folder, new_heads=True, layers=keep, **fields)
    model.reset(**dict.fromkeys(prepared.heads.new, True))
    keep_rows(model, prepared.heads)
    return model


def train(
    trainer: Trainer,
    folder: RunFolder | None,
    stop: StopSignals,
    after_epoch: AfterEpoch | None = None,
) -> None:
    """Train all remaining epochs; call `after_epoch` with the dev score of each.

    At the end, or when a signal stops the run, the folder holds a checkpoint and the model with the best dev
    score (without dev: the last one)."""
    t, progress = trainer.settings.training, trainer.progress
    try:
        if not progress.trained:
            prepare_steps(trainer)
        while not progress.trained:
            losses = train_epoch(trainer, folder, stop)
            dev = trainer.evaluate()
            with stop.deferred():
                end_epoch(trainer, folder, losses, dev)
            if after_epoch and (score := trainer.prepared.selection.score(dev)) is not None:
                after_epoch(len(progress.metrics), t.num_epochs, score)
        if progress.without_gain == t.early_stopping and len(progress.metrics) < t.num_epochs:
            print(f"Stopping early: {progress.without_gain} epochs without a better dev score")
        elif progress.still_rising:
            print(
                f"The dev score was still rising at epoch {t.num_epochs}: more epochs may help "
                "(training.num_epochs)"
            )
        with stop.deferred():
            save_checkpoint(trainer, folder)
    except StoppedBySignal:
        save_checkpoint(trainer, folder)
        raise
    finally:
        drop_graphs(trainer)  # they hold the trainer, and with it the device's memory


def prepare_steps(trainer: Trainer) -> None:
    """Compute the frozen layers' output and a teacher's probabilities, fit the classes that a known head
    lacks and, on a GPU, decide how steps run. The epoch's time includes it."""
    since, prepared = time.perf_counter(), trainer.prepared
    features = trainer.features_for("train")
    if trainer.soft:
        trainer.soft.compute(trainer.device)
    if not trainer.steps:
        with trainer.evaluation_attention():
            runner = TorchRunner(trainer.model, features, trainer.precision)
            fit_new_classes(trainer.model, prepared.heads, runner, trainer.corpus, prepared.class_weights)
    use_graphs(trainer, loss_of)
    trainer.progress.seconds += time.perf_counter() - since


def train_epoch(trainer: Trainer, folder: RunFolder | None, stop: StopSignals) -> dict:
    """Train the remaining steps of an epoch → the mean losses of all its steps."""
    progress, every = trainer.progress, trainer.settings.training.checkpoint_every
    trainer.model.train()
    since = time.perf_counter()
    bar = tqdm(
        trainer.batches(),
        f"epoch {progress.epoch}",
        len(trainer.sampler),
        leave=False,
        initial=progress.step,
        disable=distributed.disable_progress_bar(),
    )
    with trainer.stepping():
        for windows in bar:
            with stop.deferred():
                train_step(trainer, windows)
                progress.step += 1
                if progress.step % READ_EVERY == 0:
                    bar.set_postfix(loss=f"{trainer.losses()['loss']:.4f}")
                progress.seconds += time.perf_counter() - since
                if every and trainer.steps % every == 0:
                    save_checkpoint(trainer, folder)
                since = time.perf_counter()
    losses = trainer.losses()
    progress.seconds += time.perf_counter() - since
    return losses


def end_epoch(trainer: Trainer, folder: RunFolder | None, losses: dict, dev: Scores | None) -> None:
    """Log an epoch, and save its model if it is the best so far."""
    t, progress = trainer.settings.training, trainer.progress
    metrics = {
        "epoch": progress.epoch,
        "step": trainer.steps,
        "seconds": round(progress.seconds, 3),
        "sentences_per_second": round(trainer.sentences / progress.seconds, 1),
        **losses,
        "dev": dev.headline() if dev else None,
    }
    print(epoch_line(metrics, t.num_epochs), flush=True)
    trainer.weighting.end_epoch({task: losses[f"loss_{task}"] for task in trainer.tasks})
    score = trainer.prepared.selection.score(dev)
    better = progress.end_epoch(metrics, score, t.num_epochs, t.early_stopping)
    trainer.reset_losses()
    if folder and better:
        trainer.best = copy_learned_tensors(trainer)
        trainer.best_checksum = folder.save(merge_lora(trainer.model), metrics["dev"])
    if folder:
        folder.log(metrics)


def train_step(trainer: Trainer, windows: np.ndarray) -> None:
    """One update of the weights from `windows`, in micro-batches that are shared out to the processes.

    Both losses are divided by the counts of the whole step: its micro-batches then give the same gradient as
    one large batch."""
    counts = count_labels(trainer.corpus, windows, trainer.prepared.class_weights)
    if trainer.soft:
        counts = trainer.soft.count(windows, counts)
    trainer.retry_smaller_on_oom(partial(gradients, trainer, windows, counts), windows)
    trainer.step(counts)


def gradients(trainer: Trainer, windows: np.ndarray, counts: tuple[float, float]) -> None:
    """Compute a step's gradients: summed over this process's micro-batches, averaged over the processes."""
    parts, share = trainer.micro_batches(windows), 1 / trainer.count_micro_batches(windows)
    for number, part in enumerate(parts, 1):
        if trainer.graphs:
            divisors = counts[0] or 1, counts[1] or 1
            trainer.graphs.add_gradients(part, trainer.micro_batch, divisors, share)
            continue
        with distributed.sync_only_last(trainer.forward, last=number == len(parts)):
            loss_of(trainer, trainer.batch(part, windows), counts, share).backward()


def loss_of(trainer: Trainer, batch: dict[str, Tensor], counts: Counts, share: float | Tensor) -> Tensor:
    """The scalar of a micro-batch, which is this share of its step, to call backward on. A CUDA graph may
    record this function: nothing here waits for the device."""
    with autocast(trainer.device, trainer.precision):
        output = trainer.forward(
            batch.get("input_ids"), batch["attention_mask"], batch.get("hidden"), trainer.depth
        )
    transitions = trainer.model.transitions() if trainer.model.transitions else None
    both = multitask_loss(
        output,
        batch["labels_task_a"],
        batch["labels_task_b"],
        *counts,
        batch["weights_task_a"],
        trainer.class_weights,
        trainer.settings.training.label_smoothing,
        transitions=transitions,
    )
    if trainer.soft:
        both = trainer.soft.mix(both, output, batch, counts, transitions)
    losses = {task: loss for task, loss in zip(TASKS, both) if task in trainer.tasks}
    trainer.record_losses(losses, counts)
    # gradients are averaged over the processes, but their sum is needed
    loss = finite_or_nan(trainer.weighting(losses, share) * distributed.world_size())
    return trainer.optimizer_step.scaled(loss)


if __name__ == "__main__":
    run_script(main)
