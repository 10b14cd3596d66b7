"""Training speed with and without training.fast_dropout and training.occurring_rows.

    python benchmarks/speedups.py [--rounds N] [--steps N] [--output FILE.json] [key=value ...]

Everything is trained, on the CPU, in batches of 32; the data is corpus/ unless data.train=FILE names another.
Each combination has its own trainer in one process; in every round each of them takes the same number of
steps. The last line is JSON."""

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
    "both": (),
    "occurring_rows alone": ("training.fast_dropout=false",),
    "fast_dropout alone": ("training.occurring_rows=false",),
    "neither": ("training.fast_dropout=false", "training.occurring_rows=false"),
}


def main() -> None:
    overrides, words = split_overrides(sys.argv[1:])
    parser = argparse.ArgumentParser(description="Time training steps with each speedup on and off.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="steps per round and way")
    arguments = parse(parser, words)
    trainers = {way: trainer([*BASE, *overrides, *changes]) for way, changes in WAYS.items()}
    speeds = measure(trainers, arguments.rounds, arguments.steps)
    seed = trainers["both"].settings.training.seed
    record = {
        **provenance([seed], torch.get_num_threads(), ("torch", "transformers")),
        "rounds": {way: [round(value, 3) for value in values] for way, values in speeds.items()},
    }
    print(table({"here": record}) + "\n")
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


def table(records: dict[str, dict]) -> str:
    """Records by the name of their corpus → one row per way: median steps per second, and the median of the
    rounds' ratios to neither setting (a round's ways ran within seconds of each other)."""
    rows = [["", *(cell for corpus in records for cell in (f"{corpus}, steps/s", "times neither"))]]
    for way in WAYS:
        row = [way]
        for record in records.values():
            speeds, base = (record["rounds"][name] for name in (way, "neither"))
            ratio = statistics.median(speed / plain for speed, plain in zip(speeds, base))
            row += [f"{statistics.median(speeds):.2f}", f"{ratio:.2f}"]
        rows.append(row)
    return markdown(rows)


if __name__ == "__main__":
    run_script(main)
