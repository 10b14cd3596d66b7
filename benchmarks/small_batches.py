"""Time for predicting a few sentences of different lengths at once, packed and padded.

    python benchmarks/small_batches.py [--model DIR] [--data FILE] [--sizes N ...] [--rounds N]
        [--output FILE.json]

A server predicts such small batches. In each round new sentences are drawn and predicted in both modes, one
batch after the other. The last line is JSON."""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.provenance import finish, parse, provenance
from benchmarks.serve import model_and_data
from benchmarks.tables import markdown
from multitask.common.errors import InputError
from multitask.common.shell import run_script
from multitask.data.texts import read_rows
from multitask.inference.predictor import Predictor

MODES = {"packed": True, "padded": False}


def main() -> None:
    import torch  # importing the table must not need it

    arguments = options()
    rows = list(read_rows(arguments.data))
    predictor = Predictor.from_pretrained(arguments.model, "cpu")
    if not getattr(predictor.runner, "packs", False):
        raise InputError(f"{arguments.model}: this model is not packed; only torch models on a CPU are")
    record = {
        **provenance([0], torch.get_num_threads(), ("torch", "transformers")),
        "milliseconds": {size: measured(predictor, rows, size, arguments.rounds) for size in arguments.sizes},
    }
    print(table(record["milliseconds"]) + "\n")
    finish(record, arguments.output)


def options() -> argparse.Namespace:
    parser = model_and_data("Batches of a few sentences, packed and padded.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 4, 8, 16, 32], help="batch sizes")
    parser.add_argument("--rounds", type=int, default=30)
    return parse(parser)


def measured(predictor: Predictor, rows: list, size: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each round, in both modes. The first round is a warm-up and is not counted."""
    draw = np.random.default_rng(0)
    times: dict[str, list[float]] = {mode: [] for mode in MODES}
    for _ in range(rounds + 1):
        batch = [rows[at] for at in draw.choice(len(rows), size, replace=size > len(rows))]
        for mode, packs in MODES.items():
            predictor.runner.packs = packs
            started = time.perf_counter()
            predictor.predict_examples(batch)
            times[mode].append(round(1e3 * (time.perf_counter() - started), 2))
    return {mode: values[1:] for mode, values in times.items()}


def table(milliseconds: dict[int, dict[str, list[float]]]) -> str:
    """One row per batch size: medians and their ratio."""
    rows = [["sentences", *(f"{mode}, ms" for mode in MODES), "padded / packed"]]
    for size, times in milliseconds.items():
        packed, padded = (statistics.median(times[mode]) for mode in MODES)
        rows.append([str(size), f"{packed:.1f}", f"{padded:.1f}", f"{padded / packed:.2f}"])
    return markdown(rows, left=0)


if __name__ == "__main__":
    run_script(main)
