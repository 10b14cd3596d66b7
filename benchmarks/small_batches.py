"""Milliseconds that a few sentences of unlike lengths take, as a server meets them: packed and padded.

    python benchmarks/small_batches.py [--model DIR] [--data FILE] [--sizes N ...] [--rounds N]
        [--output FILE.json]

Round by round the sentences are drawn anew, and both ways read the same ones, one batch after the other. The
last line is JSON."""

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

WAYS = {"packed": True, "padded": False}


def main() -> None:
    import torch  # not for those who import the table

    arguments = options()
    rows = list(read_rows(arguments.data))
    predictor = Predictor.from_pretrained(arguments.model, "cpu")
    if not getattr(predictor.runner, "packs", False):
        raise InputError(f"{arguments.model}: nothing is packed here: it is for torch models on a CPU")
    record = {
        **provenance([0], torch.get_num_threads(), ("torch", "transformers")),
        "milliseconds": {size: measured(predictor, rows, size, arguments.rounds) for size in arguments.sizes},
    }
    print(table(record["milliseconds"]) + "\n")
    finish(record, arguments.output)


def options() -> argparse.Namespace:
    parser = model_and_data("Batches of a few sentences, packed and padded.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 4, 8, 16, 32], help="of batches")
    parser.add_argument("--rounds", type=int, default=30)
    return parse(parser)


def measured(predictor, rows: list, size: int, rounds: int) -> dict[str, list[float]]:
    """The milliseconds of each round; the first one, in which libraries make ready, is left out."""
    draw = np.random.default_rng(0)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds + 1):
        batch = [rows[at] for at in draw.choice(len(rows), size, replace=size > len(rows))]
        for way, packs in WAYS.items():
            predictor.runner.packs = packs
            began = time.perf_counter()
            predictor.predict_examples(batch)
            found[way].append(round(1e3 * (time.perf_counter() - began), 2))
    return {way: each[1:] for way, each in found.items()}


def table(milliseconds: dict[int, dict[str, list[float]]]) -> str:
    """A row a size of batch: medians, and their ratio."""
    rows = [["sentences", *(f"{way}, ms" for way in WAYS), "padded / packed"]]
    for size, found in milliseconds.items():
        packed, padded = (statistics.median(found[way]) for way in WAYS)
        rows.append([str(size), f"{packed:.1f}", f"{padded:.1f}", f"{padded / packed:.2f}"])
    return markdown(rows, left=0)


if __name__ == "__main__":
    run_script(main)
