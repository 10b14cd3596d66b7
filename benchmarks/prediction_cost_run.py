"""Measures for joint.py the speed and memory of predicting the test set with one model or several."""

import json
import resource
import time
from pathlib import Path

import torch

from model import MultiTaskTransformer
from multitask.data.labels import labels_from_config
from multitask.data.splits import read_split
from multitask.data.tokenization import WordTokenizer
from multitask.encoders.pretrained import load_model, load_tokenizer
from multitask.evaluation.evaluate import evaluate
from multitask.inference.runner import runner_of


def main(folder: Path) -> None:
    """Read spec.json in the folder, predict with its models one after the other, and write outcome.json.

    The time covers the models and decoding, not encoding; the first of two rounds is a warm-up."""
    spec = json.loads((folder / "spec.json").read_text())
    torch.set_num_threads(spec["threads"])
    loaded = []
    for path in spec["models"]:
        model, tokenizer = load_model(MultiTaskTransformer, path), load_tokenizer(Path(path))
        split = read_split(
            [spec["test"]], WordTokenizer(tokenizer), model.config.max_length, model.config.stride
        )
        labels = labels_from_config(model.config)
        loaded.append((runner_of(model), split.corpus(labels), labels))
    for _ in range(2):
        started = time.perf_counter()
        for runner, corpus, labels in loaded:
            evaluate(runner, corpus, labels)
        seconds = time.perf_counter() - started
    outcome = {
        "rows_per_second": len(loaded[0][1]) / seconds,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    (folder / "outcome.json").write_text(json.dumps(outcome))
