"""Runs the contenders of predict_speed.py in one process.

python -m benchmarks.predict_speed_run FILE MODEL FOLDER ROUNDS writes result.json and exports to FOLDER."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "true"  # otherwise the pipelines print warnings

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    pipeline,
)
from transformers import logging as transformers_logging

from benchmarks.processes import measured
from benchmarks.provenance import ROOT
from multitask.common.device import choose_precision
from multitask.common.shell import run_script
from multitask.data.splits import read_split
from multitask.data.texts import read_rows, rows_from_texts
from multitask.data.tokenization import WordTokenizer
from multitask.evaluation.evaluate import evaluate
from multitask.inference import runner
from multitask.inference.batch_predict import predict_chunk, split_rows
from multitask.inference.predictor import Predictor, embed
from multitask.inference.writers import json_line

PIPELINES = ("pipeline text-classification", "pipeline ner")
REPEATS = 3  # of the test texts in a round


def main() -> None:
    test, model, folder, count = sys.argv[1:]
    texts = [row.text for row in read_rows(test)] * REPEATS
    predictors = {"Predictor": Predictor.from_pretrained(model, "cpu"), **exports(model, Path(folder))}
    record = {
        "sentences": len(texts) * int(count),
        "sentences_per_second": rounds(contenders(model, predictors), texts, int(count)),
        "scores": {name: scores(predictor, test) for name, predictor in predictors.items()},
        "seconds_of_a_round": seconds_by_part(predictors["Predictor"], texts),
        "precision": str(choose_precision("auto", torch.device("cpu"))),
        "threads": torch.get_num_threads(),
    }
    Path(folder, "result.json").write_text(json.dumps(record))


def exports(model: str, folder: Path) -> dict[str, Predictor]:
    """Export the model to ONNX, in float32 and int8 → predictors with the exports."""
    predictors = {}
    for name, words in (("ONNX float32", []), ("ONNX int8", ["--int8"])):
        target = folder / name.replace(" ", "-")
        command = [sys.executable, str(ROOT / "task_5.py"), "export", str(target), "--model", model, *words]
        measured(command, ROOT, folder)
        predictors[name] = Predictor.from_onnx(target)
    return predictors


def contenders(model: str, predictors: dict[str, Predictor]) -> dict[str, Callable]:
    """The contenders: name → a function of texts, to be timed."""
    from sentence_transformers import SentenceTransformer

    transformers_logging.set_verbosity_error()
    torch_model = predictors["Predictor"]
    # transformers cannot load the class head: a new one of the same size costs as much
    classes = {"num_labels": len(torch_model.labels.classes), "ignore_mismatched_sizes": True}
    of_classes = AutoModelForSequenceClassification.from_pretrained(model, **classes)
    of_tags = AutoModelForTokenClassification.from_pretrained(model)
    shared = {"tokenizer": AutoTokenizer.from_pretrained(model), "batch_size": 32, "device": "cpu"}
    functions: dict[str, Callable] = {name: predictor.predict for name, predictor in predictors.items()}
    functions[PIPELINES[0]] = pipeline("text-classification", of_classes, top_k=None, **shared)
    functions[PIPELINES[1]] = pipeline("ner", of_tags, aggregation_strategy="simple", **shared)
    functions["embed"] = lambda texts: embed(torch_model.runner, torch_model.tokenizer, texts)
    sentence_model = SentenceTransformer(model, device="cpu")
    functions["sentence-transformers encode"] = lambda texts: sentence_model.encode(texts, batch_size=32)
    return functions


def rounds(timed: dict[str, Callable], texts: list[str], count: int) -> dict[str, list[float]]:
    """Sentences per second of each contender in each round, and of both pipelines one after the other."""
    for function in timed.values():
        function(texts[:64])
    speeds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(count):
        for name, function in timed.items():
            started = time.perf_counter()
            function(texts)
            speeds[name].append(len(texts) / (time.perf_counter() - started))
    speeds["both pipelines"] = [1 / (1 / a + 1 / b) for a, b in zip(*(speeds[name] for name in PIPELINES))]
    return {name: [round(speed, 1) for speed in values] for name, values in speeds.items()}


def seconds_by_part(predictor: Predictor, texts: list[str]) -> dict[str, float]:
    """Seconds of reading, of the model, and of the rest: encoding, decoding, offsets and JSON."""
    run_batches, model_seconds = runner.run_batches, 0.0

    def timed(*arguments):
        nonlocal model_seconds
        started = time.perf_counter()
        outputs = run_batches(*arguments)
        model_seconds += time.perf_counter() - started
        return outputs

    runner.run_batches = timed
    try:
        started = time.perf_counter()
        rows = list(split_rows(rows_from_texts(texts)))
        read = time.perf_counter() - started
        for chunk in rows:
            predict_chunk(predictor, chunk, json_line, False)
        total = time.perf_counter() - started
    finally:
        runner.run_batches = run_batches
    rest = total - read - model_seconds
    parts = {"reading": read, "model": model_seconds, "rest": rest, "all": total}
    return {name: round(seconds, 4) for name, seconds in parts.items()}


def scores(predictor: Predictor, test: str) -> dict[str, float | None]:
    """The headline metrics of a predictor on the test file."""
    config = predictor.config
    split = read_split([test], WordTokenizer(predictor.tokenizer), config.max_length, config.stride)
    return evaluate(predictor.runner, split.corpus(predictor.labels), predictor.labels).headline()


if __name__ == "__main__":
    run_script(main)
