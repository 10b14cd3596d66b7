"""Train both heads, or one: python task_4.py [key=value ...] [--config FILE] [--resume [RUN]] [--check]"""

import argparse
import sys
import time
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

from model import MultiTaskTransformer, multitask_loss
from multitask.common import distributed
from multitask.common.device import autocast
from multitask.common.shell import run_script
from multitask.common.signals import StoppedBySignal, StopSignals
from multitask.config.help_text import help_text
from multitask.config.loading import load_settings, split_overrides
from multitask.config.schema import Settings, trained_tasks
from multitask.data.batching import count_labels
from multitask.data.labels import TASKS
from multitask.encoders.lora import merge_lora
from multitask.encoders.pretrained import load_model
from multitask.evaluation.calibration import fit_temperatures
from multitask.evaluation.evaluate import evaluate_corpus
from multitask.evaluation.metrics import Scores, scores_table
from multitask.evaluation.report import Report
from multitask.inference.predictor import Predictor
from multitask.inference.runner import runner_of
from multitask.training.optimizer import finite_or_nan
from multitask.training.preparation import Prepared, describe, model_config_fields, prepare
from multitask.training.progress import Progress, learned
from multitask.training.resume import CONFIG, find_run, is_finished
from multitask.training.run_folder import (
    RUNS,
    RunFolder,
    check_output_dir,
    epoch_line,
    open_run_folder,
    resume_hint_on_failure,
    save_checkpoint,
)
from multitask.training.trainer import Trainer

READ_EVERY = 50  # steps: reading a loss makes the CPU wait for the device


def main() -> None:
    arguments, overrides = parse(sys.argv[1:])
    old = None if arguments.resume is None else find_run(arguments.resume, RUNS)
    settings = load_settings(arguments.config or (old / CONFIG if old else CONFIG), overrides)
    if old is None:
        check_output_dir(settings.output_dir)
    device = distributed.init_processes(settings.device)
    if old and is_finished(old):
        print(f"{old} is finished: there is nothing to resume")
        return
    with distributed.main_process_first():
        prepared = prepare(settings)
    if arguments.check:
        print(describe(prepared))
        return
    print(f"Using device: {device}")
    run = Trainer(build(prepared, settings).to(device), prepared, settings)
    folder = open_run_folder(run, old)
    with resume_hint_on_failure(folder), StopSignals() as stop:
        train(run, folder, stop)
        progress = run.progress
        del run  # the best model takes its place
        scores = finish(prepared, settings, folder, device, progress, stop)
    if scores:
        print(f"Test, with the best model\n{scores_table(scores)}")
    if folder:
        print(f"Run folder: {folder.path}\nReport: {folder.report}")


def parse(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command line → options and overrides, in any order."""
    overrides, rest = split_overrides(words)
    parser = argparse.ArgumentParser(
        usage="python task_4.py [key=value ...] [--config FILE] [--resume [RUN]] [--check]",
        description="Train the model that config.yml describes.",
        epilog=f"keys of config.yml, with their defaults; key=value sets one for this run:\n\n{help_text()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help="settings (config.yml, or a resumed run's own)")
    parser.add_argument(
        "--resume", nargs="?", const="", metavar="RUN", help="go on with a run that was stopped (the newest)"
    )
    parser.add_argument("--check", action="store_true", help="check settings and data, print what is there")
    return parser.parse_args(rest), overrides


def build(prepared: Prepared, settings: Settings) -> MultiTaskTransformer:
    """The encoder with the run's heads: new ones, or those that the starting model brings."""
    torch.manual_seed(settings.training.seed)
    fields = model_config_fields(settings, prepared)
    model = load_model(MultiTaskTransformer, prepared.backbone.folder, new_heads=True, **fields)
    model.reset(**dict.fromkeys(prepared.new_heads, True))
    return model


def train(run: Trainer, folder: RunFolder | None, stop: StopSignals) -> None:
    """All epochs that are left. Then the folder holds the model with the best dev score, or the last one
    without dev, and a checkpoint; so it does where a signal stops the run."""
    t, at = run.settings.training, run.progress
    try:
        while not at.trained:
            losses = train_epoch(run, folder, stop)
            dev = run.evaluate()
            with stop.deferred():
                end_epoch(run, folder, losses, dev)
        if at.without_gain == t.early_stopping and len(at.metrics) < t.num_epochs:
            print(f"Stopping early: {at.without_gain} epochs without a better dev score")
        with stop.deferred():
            save_checkpoint(run, folder)
    except StoppedBySignal:
        save_checkpoint(run, folder)
        raise


def train_epoch(run: Trainer, folder: RunFolder | None, stop: StopSignals) -> dict:
    """The steps that are left of an epoch → the losses of all its steps."""
    at, every = run.progress, run.settings.training.checkpoint_every
    run.model.train()
    since = time.perf_counter()
    run.frozen("train")
    bar = tqdm(
        run.batches(),
        f"epoch {at.epoch}",
        len(run.sampler),
        leave=False,
        initial=at.step,
        disable=distributed.disable_progress_bar(),
    )
    with run.threads():
        for windows in bar:
            with stop.deferred():
                train_step(run, windows)
                at.step += 1
                if at.step % READ_EVERY == 0:
                    bar.set_postfix(loss=f"{run.losses()['loss']:.4f}")
                at.seconds += time.perf_counter() - since
                if every and run.steps % every == 0:
                    save_checkpoint(run, folder)
                since = time.perf_counter()
    losses = run.losses()
    at.seconds += time.perf_counter() - since
    return losses


def end_epoch(run: Trainer, folder: RunFolder | None, losses: dict, dev: Scores | None) -> None:
    """Log an epoch, and save its model if it is the best so far."""
    t, at = run.settings.training, run.progress
    metrics = {
        "epoch": at.epoch,
        "step": run.steps,
        "seconds": round(at.seconds, 3),
        "sentences_per_second": round(run.sentences / at.seconds, 1),
        **losses,
        "dev": dev.headline() if dev else None,
    }
    print(epoch_line(metrics, t.num_epochs), flush=True)
    run.weighting.end_epoch({task: losses[f"loss_{task}"] for task in run.tasks})
    better = at.end_epoch(metrics, dev.mean() if dev else None, t.num_epochs, t.early_stopping)
    run.restart()
    if folder and better:
        run.best = {name: value.detach().to("cpu", copy=True) for name, value in learned(run).items()}
        run.best_weights = folder.save(merge_lora(run.model), metrics["dev"])
    if folder:
        folder.log(metrics)


def train_step(run: Trainer, windows: np.ndarray) -> None:
    """One update over `windows`, in micro-batches, of which each process has its part.

    Both losses are divided by the counts of the whole step, so that its micro-batches give the gradient that
    one large batch would give."""
    counts = count_labels(run.corpus, windows)
    run.retry_smaller_on_oom(partial(gradients, run, windows, counts), windows)
    run.step(counts)


def gradients(run: Trainer, windows: np.ndarray, counts: tuple[float, float]) -> None:
    """The gradients of a step, added up over this process's micro-batches and averaged over the processes."""
    parts, share = run.micro_batches(windows), 1 / run.calls(windows)
    for number, part in enumerate(parts, 1):
        batch = run.batch(part, windows)
        with distributed.sync_only_last(run.forward, last=number == len(parts)):
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
            finite_or_nan(run.weighting(losses, share) * distributed.world_size()).backward()


def finish(
    prepared: Prepared,
    settings: Settings,
    folder: RunFolder | None,
    device: torch.device,
    progress: Progress,
    stop: StopSignals,
) -> Scores | None:
    """Fit the best model's temperatures on dev, score it on test, and write both into its folder, and a page
    of test, or else of dev."""
    if folder:
        model = load_model(MultiTaskTransformer, folder.model).to(device)
    else:
        model = build(prepared, settings).to(device)
    distributed.broadcast_weights(model)
    corpora, labels, runner = prepared.corpora, prepared.labels, runner_of(model)
    split = next((name for name in ("test", "dev") if name in corpora), None)
    if "dev" in corpora:
        temperatures = fit_temperatures(runner, corpora["dev"], labels)
        model.config.temperature_task_a, model.config.temperature_task_b = temperatures
    shown = None
    if split:
        files, predictor = getattr(settings.data, split), Predictor(runner, prepared.tokenizer, labels)
        shown = evaluate_corpus(predictor, "", files, corpora[split], trained_tasks(settings))
    test = shown.scores if split == "test" else None
    page = Report(folder.facts(progress), split, shown).page() if folder else b""
    with stop.deferred():
        if folder:
            folder.finish(model, progress.best_dev, test, "dev" in corpora, page)
    return test


if __name__ == "__main__":
    run_script(main)
