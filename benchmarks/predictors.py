"""The contenders of predict_speed.py, in a process of their own: FILE MODEL FOLDER ROUNDS → a line of JSON.

FOLDER is where the exports go."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "true"  # else the pipelines warn of it

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    pipeline,
)
from transformers import logging as transformers_logging

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.processes import measured
from multitask.common.device import choose_precision
from multitask.data.splits import read_split
from multitask.data.texts import read_rows, rows_from_texts
from multitask.data.tokenization import WordTokenizer
from multitask.evaluation.evaluate import evaluate
from multitask.inference import runner
from multitask.inference.batch_predict import predict_chunk, split_rows
from multitask.inference.predictor import Predictor, embed
from multitask.inference.writers import json_line

PIPELINES = ("pipeline text-classification", "pipeline ner")
TIMES = 3  # the test texts in a round


def main() -> None:
    test, model, folder, count = sys.argv[1:]
    texts = [row.text for row in read_rows(test)] * TIMES
    predictors = {"Predictor": Predictor.from_pretrained(model, "cpu"), **exports(model, Path(folder))}
    record = {
        "sentences": len(texts) * int(count),
        "sentences_per_second": rounds(contenders(model, predictors), texts, int(count)),
        "scores": {name: scores(predictor, test) for name, predictor in predictors.items()},
        "seconds_of_a_round": share_of_the_model(predictors["Predictor"], texts),
        "precision": str(choose_precision("auto", torch.device("cpu"))),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(record))


def exports(model: str, folder: Path) -> dict[str, Predictor]:
    """The model as ONNX, in float32 and int8."""
    found = {}
    for name, words in (("ONNX float32", []), ("ONNX int8", ["--int8"])):
        target = folder / name.replace(" ", "-")
        command = [sys.executable, str(ROOT / "task_5.py"), "export", str(target), "--model", model, *words]
        measured(command, ROOT, folder)
        found[name] = Predictor.from_onnx(target)
    return found


def contenders(model: str, predictors: dict[str, Predictor]) -> dict[str, Callable]:
    """What is timed: a name, and a function of texts."""
    from sentence_transformers import SentenceTransformer

    transformers_logging.set_verbosity_error()
    torch_model = predictors["Predictor"]
    # its class head is none of theirs: a new one of its size costs as much
    classes = {"num_labels": len(torch_model.labels.classes), "ignore_mismatched_sizes": True}
    of_classes = AutoModelForSequenceClassification.from_pretrained(model, **classes)
    of_tags = AutoModelForTokenClassification.from_pretrained(model)
    shared = {"tokenizer": AutoTokenizer.from_pretrained(model), "batch_size": 32, "device": "cpu"}
    found: dict[str, Callable] = {name: each.predict for name, each in predictors.items()}
    found[PIPELINES[0]] = pipeline("text-classification", of_classes, top_k=None, **shared)
    found[PIPELINES[1]] = pipeline("ner", of_tags, aggregation_strategy="simple", **shared)
    found["embed"] = lambda texts: embed(torch_model.runner, torch_model.tokenizer, texts)
    sentence_model = SentenceTransformer(model, device="cpu")
    found["sentence-transformers encode"] = lambda texts: sentence_model.encode(texts, batch_size=32)
    return found


def rounds(timed: dict[str, Callable], texts: list[str], count: int) -> dict[str, list[float]]:
    """Sentences a second of each contender in each round, and of the two pipelines one after the other."""
    for function in timed.values():
        function(texts[:64])
    speeds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(count):
        for name, function in timed.items():
            since = time.perf_counter()
            function(texts)
            speeds[name].append(len(texts) / (time.perf_counter() - since))
    speeds["both pipelines"] = [1 / (1 / a + 1 / b) for a, b in zip(*(speeds[name] for name in PIPELINES))]
    return {name: [round(speed, 1) for speed in found] for name, found in speeds.items()}


def share_of_the_model(predictor: Predictor, texts: list[str]) -> dict[str, float]:
    """Seconds of reading, of the model's passes, and of decoding, offsets and writing JSON, for texts."""
    spent = {"model": 0.0}
    passes = runner.run_batches

    def timed(*given):
        since = time.perf_counter()
        found = passes(*given)
        spent["model"] += time.perf_counter() - since
        return found

    runner.run_batches = timed
    try:
        since = time.perf_counter()
        rows = list(split_rows(rows_from_texts(texts)))
        read = time.perf_counter() - since
        for chunk in rows:
            predict_chunk(predictor, chunk, json_line, False)
        total = time.perf_counter() - since
    finally:
        runner.run_batches = passes
    parts = {"reading": read, **spent, "rest": total - read - spent["model"], "all": total}
    return {name: round(seconds, 4) for name, seconds in parts.items()}


def scores(predictor: Predictor, test: str) -> dict[str, float | None]:
    """Its headline scores on the test file."""
    config = predictor.config
    split = read_split([test], WordTokenizer(predictor.tokenizer), config.max_length, config.stride)
    return evaluate(predictor.runner, split.corpus(predictor.labels), predictor.labels).headline()


if __name__ == "__main__":
    main()
