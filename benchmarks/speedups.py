"""Training speed with and without training.fast_dropout and training.occurring_rows.

    python benchmarks/speedups.py [--rounds N] [--steps N] [--output FILE.json] [key=value ...]

Everything is trained, on the CPU, in batches of 32; the data is corpus/ unless data.train=FILE names another.
Each variant has its own trainer, all in one process; in every round each takes the same number of steps. The
table has the medians over the rounds and their ratio to both settings on. The last line is JSON."""

import argparse
import statistics
import sys
import time
from itertools import chain, cycle, islice
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import task_4
from benchmarks.provenance import finish, parse, provenance
from benchmarks.tables import markdown
from multitask.common.shell import run_script
from multitask.config.loading import load_settings, split_overrides
from multitask.encoders.pretrained import BUNDLED
from multitask.training.preparation import prepare
from multitask.training.trainer import Trainer

BASE = (
    *(f"model.backbone={BUNDLED}", "model.freeze_backbone=false", "device=cpu", "training.batch_size=32"),
    *("model.num_classes_task_a=null", "model.num_labels_task_b=null"),
)
VARIANTS = {
    "both on": (),
    "fast_dropout off": ("training.fast_dropout=false",),
    "occurring_rows off": ("training.occurring_rows=false",),
    "both off": ("training.fast_dropout=false", "training.occurring_rows=false"),
}


def main() -> None:
    overrides, words = split_overrides(sys.argv[1:])
    parser = argparse.ArgumentParser(description="Time training steps with each speedup on and off.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="steps per round and variant")
    arguments = parse(parser, words)
    trainers = {variant: make_trainer([*BASE, *overrides, *changes]) for variant, changes in VARIANTS.items()}
    speeds = measure(trainers, arguments.rounds, arguments.steps)
    medians = {variant: statistics.median(values) for variant, values in speeds.items()}
    best = medians["both on"]
    rows = [[variant, f"{speed:.2f}", f"{speed / best:.3f}"] for variant, speed in medians.items()]
    print(markdown([["settings", "steps/s", "ratio to both on"], *rows]) + "\n")
    seed = trainers["both on"].settings.training.seed
    record = {
        **provenance([seed], torch.get_num_threads(), ("torch", "transformers")),
        "steps_per_second": {variant: round(speed, 3) for variant, speed in medians.items()},
        "ratio": {variant: round(speed / best, 3) for variant, speed in medians.items()},
        "rounds": {variant: [round(value, 3) for value in values] for variant, values in speeds.items()},
    }
    finish(record, arguments.output)


def make_trainer(overrides: list[str]) -> Trainer:
    """A Trainer with these settings, ready for its first step."""
    settings = load_settings(ROOT / "config.yml", overrides)
    prepared = prepare(settings)
    result = Trainer(task_4.build(prepared, settings), prepared, settings)
    result.model.train()
    return result


def measure(trainers: dict[str, Trainer], rounds: int, steps: int) -> dict[str, list[float]]:
    """Steps per second of each trainer in each round; the first round is a warm-up and is not counted."""
    batches = {variant: cycle(list(trainer.batches())) for variant, trainer in trainers.items()}
    speeds: dict[str, list[float]] = {variant: [] for variant in trainers}
    variants = list(trainers)
    for number in range(rounds + 1):
        shift = number % len(variants)  # another variant comes first in each round
        for variant in chain(variants[shift:], variants[:shift]):
            started = time.perf_counter()
            for windows in islice(batches[variant], steps):
                task_4.train_step(trainers[variant], windows)
            speeds[variant].append(steps / (time.perf_counter() - started))
    return {variant: values[1:] for variant, values in speeds.items()}


if __name__ == "__main__":
    run_script(main)
