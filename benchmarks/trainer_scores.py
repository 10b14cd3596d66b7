"""Test scores of this project and of transformers.Trainer, each with its learning rate tuned on dev.

    python benchmarks/trainer_scores.py [--corpus FOLDER] [--epochs N] [--seeds N] [--output FILE.json]

Both fine-tune the whole bundled encoder with the same data, windows, labels, epochs and batch size, choose
the epoch with the best dev score (mean of accuracy and entity F1), and are scored by the same code. Otherwise
Trainer has its defaults: one rate for all parameters, linear decay without warm-up, no weight decay, BERT's
dropout of 0.1 also in attention, and the sum of both mean losses. Each rate of the grid is tried with seed 0;
the rate with the best dev score then runs with all seeds. The last line is JSON."""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import TrainerCallback

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.comparison import BERTS_OWN, ROOT
from benchmarks.provenance import finish, parse, provenance
from benchmarks.tables import spread
from benchmarks.trainer_run import make_trainer, trainer_model
from model import MultiTaskTransformer
from multitask.common.shell import run_script
from multitask.config.loading import load_settings
from multitask.config.schema import Settings
from multitask.encoders.pretrained import BUNDLED
from multitask.evaluation.evaluate import evaluate
from multitask.training.preparation import Prepared, prepare

RATES = (5e-5, 1e-4, 2e-4, 4e-4, 8e-4)
Run = Callable[[float, int], tuple[float, dict]]  # rate, seed → the best dev score, and the test scores


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare test scores with transformers.Trainer.")
    parser.add_argument(
        "--corpus", default=str(ROOT / "corpus"), help="a folder with train, dev and test.jsonl"
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parse(parser)
    base = [
        f"model.backbone={BUNDLED}",
        "model.freeze_backbone=false",
        "model.num_classes_task_a=null",
        "model.num_labels_task_b=null",
        f"training.num_epochs={arguments.epochs}",
        "device=cpu",
        *(f"data.{split}={arguments.corpus}/{split}.jsonl" for split in ("train", "dev", "test")),
    ]
    results = {
        "task_4.py": compare(lambda rate, seed: ours(base, rate, seed), arguments.seeds),
        "transformers.Trainer": compare(lambda rate, seed: trainer(base, rate, seed), arguments.seeds),
    }
    print(f"{'':<22}{'rate':>8}  {'accuracy':>17}  {'entity F1':>17}  {'exact match':>17}")
    for name, result in results.items():
        cells = [spread(values, ".4f") for values in result["test"].values()]
        print(f"{name:<22}{result['rate']:>8.0e}  " + "  ".join(f"{cell:>17}" for cell in cells))
    record = {
        **provenance(range(arguments.seeds), torch.get_num_threads(), ("torch", "transformers")),
        "corpus": Path(arguments.corpus).name,
        "results": results,
    }
    finish(record, arguments.output)


def compare(run: Run, seeds: int) -> dict:
    """Find the best rate of RATES on dev with seed 0 → that rate and the test scores of all seeds with it."""
    first = {rate: run(rate, 0) for rate in RATES}
    for rate, (dev, test) in first.items():
        print(f"rate {rate:.0e}: dev {dev:.4f}, test {test}", file=sys.stderr, flush=True)
    best = max(first, key=lambda rate: first[rate][0])
    tests = [first[best][1], *(run(best, seed)[1] for seed in range(1, seeds))]
    figures = ("accuracy", "entity_f1", "exact_match")
    return {
        "rate": best,
        "dev_by_rate": {f"{rate:.0e}": dev for rate, (dev, _) in first.items()},
        "test": {name: [test[name] for test in tests] for name in figures},
    }


def ours(base: list[str], rate: float, seed: int) -> tuple[float, dict]:
    """Run task_4.py with its defaults except for the rate."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [f"training.learning_rate={rate}", f"training.seed={seed}", f"output_dir={folder}/run"]
        command = [sys.executable, "task_4.py", *base, *overrides]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        rows = [json.loads(line) for line in Path(folder, "run/metrics.jsonl").read_text().splitlines()]
    dev = max((row["dev"]["accuracy"] + row["dev"]["entity_f1"]) / 2 for row in rows[:-1])
    return dev, rows[-1]["test"]


class KeepBest(TrainerCallback):
    """Scores the model on dev after every epoch and keeps the best weights."""

    def __init__(self, model: MultiTaskTransformer, prepared: Prepared):
        self.model, self.prepared, self.best, self.weights = model, prepared, -1.0, None

    def on_epoch_end(self, *_, **__):
        scores = evaluate(self.model, self.prepared.corpora["dev"], self.prepared.labels)
        score = self.prepared.selection.score(scores)
        if score > self.best:
            self.best = score
            self.weights = {name: value.clone() for name, value in self.model.state_dict().items()}


def trainer(base: list[str], rate: float, seed: int) -> tuple[float, dict]:
    """Run transformers.Trainer."""
    overrides = [*base, *BERTS_OWN, f"training.learning_rate={rate}", f"training.seed={seed}"]
    settings: Settings = load_settings(ROOT / "config.yml", overrides)
    prepared = prepare(settings)
    model = trainer_model(settings, prepared)
    keep = KeepBest(model, prepared)
    with tempfile.TemporaryDirectory() as folder:
        make_trainer(model, prepared.corpora["train"], settings, folder, callbacks=[keep]).train()
    model.load_state_dict(keep.weights)
    return keep.best, evaluate(model, prepared.corpora["test"], prepared.labels).headline()


if __name__ == "__main__":
    run_script(main)
