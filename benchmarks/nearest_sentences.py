"""What the nearest training sentences, which the page shows under a prediction, say about that prediction.

    python benchmarks/nearest_sentences.py RUN [RUN ...] [--output FILE.json]

Each RUN is the folder of a finished run; its config.yml names the training and test data. The nearest five
training sentences of each test sentence are found by the cosine of the embeddings, as on the page. The table
shows how often the nearest one has the test sentence's class, and how often most of the five disagree with
the predicted class: where the prediction is right, and where it is wrong. The last line is JSON."""

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.provenance import finish, parse, provenance
from benchmarks.tables import markdown
from multitask.common.errors import InputError
from multitask.common.shell import run_script
from multitask.config.loading import load_settings
from multitask.data.examples import Example
from multitask.inference.predictor import Predictor
from multitask.serving.page.neighbours import labelled_sentences

NEAREST = 5


def main() -> None:
    import torch  # not for those who import the table

    parser = argparse.ArgumentParser(description="Compare predictions with the nearest training sentences.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a finished run")
    arguments = parse(parser)
    results = {run: measure(Path(run)) for run in arguments.runs}
    print(table(results) + "\n")
    record = provenance([], torch.get_num_threads(), ("torch", "transformers"))
    finish({**record, "results": results}, arguments.output)


def measure(run: Path) -> dict[str, float]:
    """The figures of a run, as `compare` returns them. Raises InputError for a run without a test set."""
    data = load_settings(run / "config.yml").data
    if not data.test:
        raise InputError(f"{run}: the run has no data.test")
    predictor = Predictor.from_pretrained(run / "model", "cpu")
    train, test = (
        [row for row in labelled_sentences(paths) if row.label] for paths in (data.train, data.test)
    )
    train_embeddings, _ = embed_and_classify(predictor, train)
    test_embeddings, predicted = embed_and_classify(predictor, test)
    train_classes, test_classes = (np.array([row.label for row in rows]) for rows in (train, test))
    order = np.argsort(-(test_embeddings @ train_embeddings.T), kind="stable")[:, :NEAREST]
    return compare(train_classes[order], np.array(predicted), test_classes)


def embed_and_classify(predictor: Predictor, rows: list[Example]) -> tuple[np.ndarray, list[str]]:
    """Embeddings of length 1 (N, D), and predicted classes."""
    predictions = predictor.predict_examples(rows, embeddings=True)
    embeddings = np.stack([prediction.embedding for prediction in predictions])
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), [p.label for p in predictions]


def compare(nearest: np.ndarray, predicted: np.ndarray, classes: np.ndarray) -> dict[str, float]:
    """Shares of the test sentences.

    Args:
        nearest: (N, 5) classes of the nearest training sentences, the nearest first.
        predicted: (N,) predicted classes.
        classes: (N,) annotated classes.

    Returns: "accuracy" of the predictions; "nearest", how often the nearest sentence has the annotated
    class; "disagree_right" and "disagree_wrong", how often most of the five have another class than the
    predicted one, among right and wrong predictions; "chance", the probability that a random sentence of the
    test set has the class of another; "sentences" and "wrong", counts."""
    right = predicted == classes
    disagree = (nearest != predicted[:, None]).sum(axis=1) > nearest.shape[1] / 2
    shares = np.unique(classes, return_counts=True)[1] / len(classes)
    return {
        "sentences": len(classes),
        "wrong": int((~right).sum()),
        "accuracy": float(right.mean()),
        "nearest": float((nearest[:, 0] == classes).mean()),
        "chance": float((shares**2).sum()),
        "disagree_right": float(disagree[right].mean()) if right.any() else 0.0,
        "disagree_wrong": float(disagree[~right].mean()) if not right.all() else 0.0,
    }


def table(results: dict[str, dict[str, float]]) -> str:
    """One row per run."""
    head = ["run", "test sentences", "accuracy", "nearest has the class", "by chance"]
    rows = [[*head, "five disagree: prediction right", "prediction wrong"]]
    for run, r in results.items():
        shares = [r[name] for name in ("accuracy", "nearest", "chance", "disagree_right", "disagree_wrong")]
        rows.append([Path(run).name, f"{r['sentences']:,}", *(f"{share:.3f}" for share in shares)])
    return markdown(rows)


if __name__ == "__main__":
    run_script(main)
