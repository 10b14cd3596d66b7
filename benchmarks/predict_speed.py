"""Predictions a second, beside transformers' pipelines and sentence-transformers.

    python benchmarks/predict_speed.py --corpus FOLDER [--model DIR] [--rounds N] [--large N] [--output FILE]

The texts of FOLDER/test.jsonl, three times over, are predicted by each contender in turn, round by round, in
one process on a CPU: class, probabilities and entities by Predictor, by its exports to ONNX in float32 and
int8, and by the two pipelines that together give as much (text-classification and ner, batches of 32);
embeddings by `embed` and by sentence-transformers' encode. Then the command itself is run: one sentence,
beside the imports that loading a BERT takes at least, and --large sentences from a file, beside as many as
the rounds have. The last line is JSON."""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "true"  # else the pipelines warn of it

import torch  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    pipeline,
)
from transformers import logging as transformers_logging  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import task_5  # noqa: E402
from benchmarks.processes import Spent, cpu, measured  # noqa: E402
from benchmarks.tables import figure, markdown  # noqa: E402
from multitask import runner  # noqa: E402
from multitask.answering import answers_to, chunks  # noqa: E402
from multitask.answers import json_line  # noqa: E402
from multitask.device import choose_precision  # noqa: E402
from multitask.errors import run as run_task  # noqa: E402
from multitask.prediction import Predictor, embed, evaluate  # noqa: E402
from multitask.split import read_split  # noqa: E402
from multitask.subwords import Subwords  # noqa: E402
from multitask.texts import rows_of, rows_of_arguments  # noqa: E402

IMPORTS = "import torch; from transformers import BertModel, AutoTokenizer"
TASK_5 = str(ROOT / "task_5.py")
PIPELINES = ("pipeline text-classification", "pipeline ner")
TIMES = 3  # the test texts in a round
STARTS = 5  # of the command, and of the imports
SENTENCE = "book a table for two in a diner in the city"


def main() -> None:
    arguments = parse()
    test = str(Path(arguments.corpus) / "test.jsonl")
    texts = [row.text for row in rows_of(test)] * TIMES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        predictors = {"Predictor": task_5.load(arguments.model, "cpu"), **exports(arguments.model, folder)}
        speeds = rounds(contenders(arguments.model, predictors), texts, arguments.rounds)
        started = startup({"Predictor": arguments.model, "ONNX int8": str(folder / "ONNX-int8")}, folder)
        small, large = (
            from_file(arguments.model, folder, texts, count)
            for count in (len(texts) * arguments.rounds, arguments.large)
        )
    record = {
        "command": " ".join(["python", "benchmarks/predict_speed.py", *sys.argv[1:]]),
        "sentences": len(texts) * arguments.rounds,
        "sentences_per_second": speeds,
        "scores": {name: scores(predictor, test) for name, predictor in predictors.items()},
        "share_of_the_model": share_of_the_model(predictors["Predictor"], texts),
        "seconds_of_one_sentence": started,
        "from_a_file": {"small": small, "large": large},
        "precision": str(choose_precision("auto", torch.device("cpu"))),
        "threads": torch.get_num_threads(),
        "cpu": cpu(),
        "versions": {
            name: version(name)
            for name in ("torch", "transformers", "sentence-transformers", "onnxruntime", "numpy")
        },
    }
    print(report(record))
    if arguments.output:
        Path(arguments.output).write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time predictions beside those of other libraries.")
    parser.add_argument("--corpus", required=True, metavar="FOLDER", help="with test.jsonl in it")
    parser.add_argument("--model", default=task_5.LATEST_MODEL, metavar="DIR", help="trained on that corpus")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--large", type=int, default=100_000, metavar="N", help="sentences of the large file")
    parser.add_argument("--output", metavar="FILE", help="the record goes here too")
    return parser.parse_args()


def exports(model: str, folder: Path) -> dict[str, Predictor]:
    """The model as ONNX, in float32 and int8."""
    found = {}
    for name, words in (("ONNX float32", []), ("ONNX int8", ["--int8"])):
        target = folder / name.replace(" ", "-")
        command = [sys.executable, TASK_5, "export", str(target), "--model", model, *words]
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
    passes = runner._passes

    def timed(*given):
        since = time.perf_counter()
        found = passes(*given)
        spent["model"] += time.perf_counter() - since
        return found

    runner._passes = timed
    try:
        since = time.perf_counter()
        rows = list(chunks(rows_of_arguments(texts)))
        read = time.perf_counter() - since
        for chunk in rows:
            answers_to(predictor, chunk, json_line, False)
        total = time.perf_counter() - since
    finally:
        runner._passes = passes
    return {"reading": read, **spent, "rest": total - read - spent["model"], "all": total}


def scores(predictor: Predictor, test: str) -> dict[str, float | None]:
    """Its headline scores on the test file."""
    config = predictor.config
    split = read_split([test], Subwords(predictor.tokenizer), config.max_length, config.stride)
    return evaluate(predictor.runner, split.corpus(predictor.labels), predictor.labels).headline()


def startup(models: dict[str, str], folder: Path) -> dict[str, list[float]]:
    """Seconds of the command with one sentence and each model, and of the imports alone, in turn."""
    commands = {"imports": ["-c", IMPORTS]}
    for name, model in models.items():
        commands[name] = [TASK_5, "predict", SENTENCE, "--model", model, "--device", "cpu"]
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(STARTS):
        for name, words in commands.items():
            seconds[name].append(round(measured([sys.executable, *words], ROOT, folder).seconds, 2))
    return seconds


def from_file(model: str, folder: Path, texts: list[str], count: int) -> dict[str, float]:
    """The command over a file of so many lines: all of its seconds, sentences a second, peak memory."""
    source, target = folder / "texts.txt", folder / "answers.jsonl"
    with open(source, "w", encoding="utf-8") as file:
        file.writelines(f"{text}\n" for text in islice(cycle(texts), count))
    words = ["predict", "--input", str(source), "--output", str(target), "--model", model, "--device", "cpu"]
    spent: Spent = measured([sys.executable, TASK_5, *words], ROOT, folder)
    with open(target, "rb") as file:
        assert sum(1 for _ in file) == count
    return {
        "sentences": count,
        "seconds": round(spent.seconds, 1),
        "sentences_per_second": round(count / spent.seconds, 1),
        "megabytes": round(spent.memory * 1.048576, 1),
        "others": spent.others,
    }


def report(record: dict) -> str:
    """The record for a person: medians, with the fastest round in brackets."""
    speeds = record["sentences_per_second"]
    middle = {name: statistics.median(found) for name, found in speeds.items()}
    beside = {name: "both pipelines" for name in ("Predictor", "ONNX float32", "ONNX int8")}
    beside["embed"] = "sentence-transformers encode"
    rows = [["", "sentences/s", "beside", "times", "accuracy", "entity F1", "whole"]]
    for name, found in speeds.items():
        other = beside.get(name)
        scored = record["scores"].get(name, {})
        rows.append(
            [
                name,
                f"{middle[name]:,.0f} ({max(found):,.0f})",
                other or "",
                f"{middle[name] / middle[other]:.2f}" if other else "",
                *(figure(scored.get(key), ".4f") for key in ("accuracy", "entity_f1", "exact_match")),
            ]
        )
    parts, started = record["share_of_the_model"], record["seconds_of_one_sentence"]
    one, imports, light = (statistics.median(started[key]) for key in ("Predictor", "imports", "ONNX int8"))
    lines = [markdown(rows), ""]
    lines.append(
        f"Reading {parts['reading'] / parts['all']:.1%}, the model {parts['model'] / parts['all']:.1%}, "
        f"encoding, decoding, offsets and output {parts['rest'] / parts['all']:.1%} of the time."
    )
    lines.append(
        f"One sentence: {one:.2f} s, the imports alone {imports:.2f} s: {one / imports:.2f} times; "
        f"as ONNX {light:.2f} s."
    )
    for size, found in record["from_a_file"].items():
        lines.append(
            f"A {size} file of {found['sentences']:,}: {found['seconds']:.0f} s, "
            f"{found['sentences_per_second']:,.0f} sentences/s, peak memory {found['megabytes']:,.0f} MB"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    run_task(main)
