"""Training speed with and without training.fast_dropout and training.occurring_rows.

    python benchmarks/speedups.py [--rounds N] [--steps N] [--output FILE.json] [key=value ...]

Everything is trained, on the CPU, in batches of 32; the data is corpus/ unless data.train=FILE names another.
Each way has its own trainer in one process; in every round each of them takes the same number of steps. The
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
WAYS = {
    "both on": (),
    "fast_dropout off": ("training.fast_dropout=false",),
    "occurring_rows off": ("training.occurring_rows=false",),
    "both off": ("training.fast_dropout=false", "training.occurring_rows=false"),
}


def main() -> None:
    overrides, words = split_overrides(sys.argv[1:])
    parser = argparse.ArgumentParser(description="Time training steps with each speedup on and off.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="steps per round and way")
    arguments = parse(parser, words)
    trainers = {way: trainer([*BASE, *overrides, *changes]) for way, changes in WAYS.items()}
    speeds = measure(trainers, arguments.rounds, arguments.steps)
    medians = {way: statistics.median(values) for way, values in speeds.items()}
    best = medians["both on"]
    rows = [[way, f"{speed:.2f}", f"{speed / best:.3f}"] for way, speed in medians.items()]
    print(markdown([["settings", "steps/s", "ratio to both on"], *rows]) + "\n")
    seed = trainers["both on"].settings.training.seed
    record = {
        **provenance([seed], torch.get_num_threads(), ("torch", "transformers")),
        "steps_per_second": {way: round(speed, 3) for way, speed in medians.items()},
        "ratio": {way: round(speed / best, 3) for way, speed in medians.items()},
        "rounds": {way: [round(value, 3) for value in values] for way, values in speeds.items()},
    }
    finish(record, arguments.output)


def trainer(overrides: list[str]) -> Trainer:
    settings = load_settings(ROOT / "config.yml", overrides)
    prepared = prepare(settings)
    result = Trainer(task_4.build(prepared, settings), prepared, settings)
    result.model.train()
    return result


def measure(trainers: dict[str, Trainer], rounds: int, steps: int) -> dict[str, list[float]]:
    """Steps per second of each trainer in each round; the first round, a warm-up, is left out."""
    batches = {way: cycle(list(each.batches())) for way, each in trainers.items()}
    speeds: dict[str, list[float]] = {way: [] for way in trainers}
    ways = list(trainers)
    for number in range(rounds + 1):
        shift = number % len(ways)  # another way begins in each round
        for way in chain(ways[shift:], ways[:shift]):
            since = time.perf_counter()
            for windows in islice(batches[way], steps):
                task_4.train_step(trainers[way], windows)
            speeds[way].append(steps / (time.perf_counter() - since))
    return {way: values[1:] for way, values in speeds.items()}


if __name__ == "__main__":
    run_script(main)
