"""Training speed with and without training.fast_dropout and training.occurring_rows.

    python benchmarks/speedups.py [--rounds N] [--steps N] [--output FILE.json] [key=value ...]

Everything is trained, on the CPU, in batches of 32; the data is corpus/ unless data.train=FILE names another.
Each variant has its own trainer in one process; in every round each of them takes the same number of
steps. The last line is JSON."""

import argparse
import statistics
import sys
import time
from itertools import chain, cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.provenance import finish, parse, provenance
from benchmarks.tables import markdown
from multitask.common.shell import run_script
from multitask.config.loading import load_settings, split_overrides
from multitask.encoders.pretrained import BUNDLED

if TYPE_CHECKING:  # importing the table must not import torch
    from multitask.training.trainer import Trainer

BASE = (
    *(f"model.backbone={BUNDLED}", "model.freeze_backbone=false", "device=cpu", "training.batch_size=32"),
    *("model.num_classes_task_a=null", "model.num_labels_task_b=null"),
)
VARIANTS = {
    "both": (),
    "occurring_rows alone": ("training.fast_dropout=false",),
    "fast_dropout alone": ("training.occurring_rows=false",),
    "neither": ("training.fast_dropout=false", "training.occurring_rows=false"),
}


def main() -> None:
    import torch

    overrides, words = split_overrides(sys.argv[1:])
    parser = argparse.ArgumentParser(description="Time training steps with each speedup on and off.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="steps per round and variant")
    arguments = parse(parser, words)
    trainers = {variant: make_trainer([*BASE, *overrides, *changes]) for variant, changes in VARIANTS.items()}
    speeds = measure(trainers, arguments.rounds, arguments.steps)
    seed = trainers["both"].settings.training.seed
    record = {
        **provenance([seed], torch.get_num_threads(), ("torch", "transformers")),
        "rounds": {variant: [round(value, 3) for value in values] for variant, values in speeds.items()},
    }
    print(table({"here": record}) + "\n")
    finish(record, arguments.output)


def make_trainer(overrides: list[str]) -> "Trainer":
    """A Trainer with these settings, ready for its first step."""
    import task_4
    from multitask.training.preparation import prepare
    from multitask.training.trainer import Trainer

    settings = load_settings(ROOT / "config.yml", overrides)
    prepared = prepare(settings)
    result = Trainer(task_4.build(prepared, settings), prepared, settings)
    result.model.train()
    return result


def measure(trainers: dict[str, "Trainer"], rounds: int, steps: int) -> dict[str, list[float]]:
    """Steps per second of each trainer in each round; the first round is a warm-up and is not counted."""
    from task_4 import train_step

    batches = {variant: cycle(list(trainer.batches())) for variant, trainer in trainers.items()}
    speeds: dict[str, list[float]] = {variant: [] for variant in trainers}
    variants = list(trainers)
    for number in range(rounds + 1):
        shift = number % len(variants)  # another variant comes first in each round
        for variant in chain(variants[shift:], variants[:shift]):
            started = time.perf_counter()
            for windows in islice(batches[variant], steps):
                train_step(trainers[variant], windows)
            speeds[variant].append(steps / (time.perf_counter() - started))
    return {variant: values[1:] for variant, values in speeds.items()}


def table(records: dict[str, dict]) -> str:
    """Records by the name of their corpus → one row per variant: median steps per second, and the median of
    the rounds' ratios to neither setting, because a round's variants ran within seconds of each other."""
    rows = [["", *(cell for corpus in records for cell in (f"{corpus}, steps/s", "times neither"))]]
    for variant in VARIANTS:
        row = [variant]
        for record in records.values():
            speeds, base = (record["rounds"][name] for name in (variant, "neither"))
            ratio = statistics.median(speed / plain for speed, plain in zip(speeds, base))
            row += [f"{statistics.median(speeds):.2f}", f"{ratio:.2f}"]
        rows.append(row)
    return markdown(rows)


if __name__ == "__main__":
    run_script(main)
