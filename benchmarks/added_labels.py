"""How soon a class head finds a class that it gets besides those of its starting model.

    python benchmarks/added_labels.py [--corpus FOLDER] [--names NAME NAME NAME ...] [--seeds N]
        [--output FILE.json]

Each of the classes in turn is the new one. A model learns the others from 100 rows each. A second run teaches
it all of them from 20 rows each, none of them among the first, with the settings of config.yml: with the new
row of the head fitted to train, as task_4.py begins, and with this row as it was drawn. Scored on test. The
last line is JSON."""

import argparse
import contextlib
import json
import random
import sys
import tempfile
from pathlib import Path
from statistics import fmean
from unittest import mock

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import task_4
from benchmarks.comparison import SPLITS
from benchmarks.provenance import ROOT, finish, parse, provenance
from benchmarks.records import Results
from benchmarks.tables import markdown, scores
from multitask.common.shell import run_script
from multitask.encoders.pretrained import BUNDLED
from multitask.evaluation.evaluate import evaluate_file
from multitask.inference.predictor import Predictor

STARTS = {"drawn": lambda *_: None, "fitted": task_4.fit_new_classes}
EPOCHS = (1, 5)
KNOWN_ROWS, MORE_ROWS = 100, 20  # per class
RECORDS = ("added_labels_corpus", "added_labels_snips")
SETTINGS = ("device=cpu", "training.task=task_a", "model.num_classes_task_a=null", "data.test=null")


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare new rows that are fitted and that are drawn.")
    parser.add_argument("--corpus", default=str(ROOT / "corpus"), help="has train, dev and test.jsonl")
    parser.add_argument("--names", nargs="+", default=["politics", "sports", "technology"])
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parse(parser)
    torch.set_num_threads(1)
    results: dict[str, dict[str, list[float]]] = {}
    for seed in range(arguments.seeds):
        for name in arguments.names:
            with tempfile.TemporaryDirectory() as folder:
                for key, figures in measure(arguments, name, seed, Path(folder)).items():
                    kept = results.setdefault(key, {figure: [] for figure in figures})
                    for figure, value in figures.items():
                        kept[figure].append(value)
    record = {
        **provenance(range(arguments.seeds), 1, ("torch", "transformers")),
        "corpus": Path(arguments.corpus).name,
        "results": results,
    }
    print(f"{markdown(rows_of([record]), left=2)}\n")
    finish(record, arguments.output)


def measure(arguments: argparse.Namespace, added: str, seed: int, folder: Path) -> dict[str, dict]:
    """Teach a model the class `added` → shares of found rows, by how the head's row begins and by epochs.
    new: of that class; known: the mean of the others; before: theirs in the starting model."""
    others = [name for name in arguments.names if name != added]
    write_rows(arguments, added, seed, folder)
    settings = [*SETTINGS, f"training.seed={seed}"]
    first = [f"data.train={folder}/known.jsonl", f"data.dev={folder}/known_dev.jsonl", "model.pooling=mean"]
    before = recalls(folder, [*settings, *first, f"model.backbone={BUNDLED}"], "first")
    more = [f"data.train={folder}/more.jsonl", "data.dev=null", f"model.backbone={folder}/first/model"]
    figures = {}
    for start, fit in STARTS.items():
        for epochs in EPOCHS:
            with mock.patch.object(task_4, "fit_new_classes", fit):
                words = [*settings, *more, f"training.num_epochs={epochs}"]
                after = recalls(folder, words, f"{start}_{epochs}")
            figures[f"{start}, {epochs}"] = {
                "new": after[added],
                "known": fmean(after[name] for name in others),
                "before": fmean(before[name] for name in others),
            }
    return figures


def write_rows(arguments: argparse.Namespace, added: str, seed: int, folder: Path) -> None:
    """Write known.jsonl and known_dev.jsonl without a class, and more.jsonl and test.jsonl with it."""
    rows = {}
    for split in SPLITS:
        lines = Path(arguments.corpus, f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        rows[split] = [row for row in map(json.loads, lines) if row.get("label") in arguments.names]
    random.Random(seed).shuffle(rows["train"])
    of_class = {name: [row for row in rows["train"] if row["label"] == name] for name in arguments.names}
    files = {
        "known": [row for name, own in of_class.items() if name != added for row in own[:KNOWN_ROWS]],
        "more": [row for own in of_class.values() for row in own[-MORE_ROWS:]],
        "known_dev": [row for row in rows["dev"] if row["label"] != added],
        "test": rows["test"],
    }
    for name, own in files.items():
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in own))


def recalls(folder: Path, words: list[str], name: str) -> dict[str, float]:
    """Run task_4.py in this process → the share of test's rows of each class that the model finds."""
    words = ["task_4.py", f"--config={ROOT / 'config.yml'}", f"output_dir={folder / name}", *words]
    with mock.patch.object(sys, "argv", words), contextlib.redirect_stdout(sys.stderr):
        task_4.main()
    predictor = Predictor.from_pretrained(folder / name / "model", "cpu")
    scores_of = evaluate_file(predictor, name, str(folder / "test.jsonl")).scores
    return {label: score.recall for label, score in scores_of.task_a.per_label.items()}


def table(results: Results) -> str:
    return markdown(rows_of([results[name] for name in RECORDS]), left=2)


def rows_of(records: list[dict]) -> list[list[str]]:
    """A table: the share of found rows of the new class and of the known ones, by corpus and epochs."""
    rows = [["corpus", "new row", "epochs", "new class found", "at least", "known ones found", "before"]]
    for record in records:
        for epochs in EPOCHS:
            for start in STARTS:
                r = record["results"][f"{start}, {epochs}"]
                cells = [scores(r["new"]), f"{min(r['new']):.2f}", scores(r["known"]), scores(r["before"])]
                rows.append([record["corpus"], start, str(epochs), *cells])
    return rows


if __name__ == "__main__":
    run_script(main)
