"""Predictions per second, compared with transformers' pipelines and sentence-transformers.

    python benchmarks/predict_speed.py --corpus FOLDER [--model DIR] [--rounds N] [--large N]
        [--starts N] [--output FILE.json]

In each round every contender predicts the texts of FOLDER/test.jsonl, three times over, in one process on a
CPU. Class, probabilities and entities come from Predictor, from its ONNX exports in float32 and int8, and
from the two pipelines that together give the same (text-classification and ner, batches of 32); embeddings
come from `embed` and from sentence-transformers' encode. Then the command itself is measured: with one
sentence, compared with the imports that loading a BERT needs, and with two files, one of --large sentences
and one of as many as all rounds have. The last line is JSON."""

import argparse
import json
import statistics
import sys
import tempfile
from itertools import cycle, islice
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# no torch here: its memory would count for the processes that are started here, see processes.py
from benchmarks.processes import Spent, measured
from benchmarks.provenance import finish, parse, provenance
from benchmarks.tables import figure, markdown
from multitask.common.errors import InputError
from multitask.common.shell import run_script
from multitask.data.texts import read_rows
from multitask.encoders.validation import read_config
from multitask.inference.predictor import LATEST_MODEL

IMPORTS = "import torch; from transformers import BertModel, AutoTokenizer"
TASK_5 = str(ROOT / "task_5.py")
PACKAGES = ("torch", "transformers", "sentence-transformers", "onnxruntime", "numpy")
SENTENCE = "book a table for two in a diner in the city"


def main() -> None:
    arguments = options()
    if read_config(arguments.model).get("token_head", "linear") != "linear":
        raise InputError(
            f"--model: transformers' pipeline can't load the token head of {arguments.model}; train one with "
            "model.token_head=linear"
        )
    test = str(Path(arguments.corpus) / "test.jsonl")
    texts = [row.text for row in read_rows(test)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = ["-m", "benchmarks.predict_speed_run", test, arguments.model, name, str(arguments.rounds)]
        measured([sys.executable, *words], ROOT, folder)
        compared = json.loads((folder / "result.json").read_text())
        models = {"Predictor": arguments.model, "ONNX int8": str(folder / "ONNX-int8")}
        started = startup(models, folder, arguments.starts)
        small, large = (
            from_file(arguments.model, folder, texts, count)
            for count in (compared["sentences"], arguments.large)
        )
    record = {
        **provenance([], compared.pop("threads"), PACKAGES),
        **compared,
        "seconds_of_one_sentence": started,
        "from_a_file": {"small": small, "large": large},
    }
    print(report(record))
    finish(record, arguments.output)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare the speed of predictions with other libraries.")
    parser.add_argument("--corpus", required=True, metavar="FOLDER", help="a folder with test.jsonl")
    parser.add_argument("--model", default=LATEST_MODEL, metavar="DIR", help="a model trained on that corpus")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--large", type=int, default=100_000, metavar="N", help="sentences of the large file")
    parser.add_argument("--starts", type=int, default=5, help="of the command, and of the imports alone")
    return parse(parser)


def startup(models: dict[str, str], folder: Path, starts: int) -> dict[str, list[float]]:
    """Seconds of the command with one sentence for each model, and of the imports alone, in each round."""
    commands = {"imports": ["-c", IMPORTS]}
    for name, model in models.items():
        commands[name] = [TASK_5, "predict", SENTENCE, "--model", model, "--device", "cpu"]
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(starts):
        for name, words in commands.items():
            seconds[name].append(round(measured([sys.executable, *words], ROOT, folder).seconds, 2))
    return seconds


def from_file(model: str, folder: Path, texts: list[str], count: int) -> dict[str, float]:
    """Run the command on a file with `count` lines → its seconds, sentences per second and peak memory."""
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
    """The record as text: medians, with the fastest round in brackets."""
    speeds = record["sentences_per_second"]
    middle = {name: statistics.median(rounds) for name, rounds in speeds.items()}
    beside = {name: "both pipelines" for name in ("Predictor", "ONNX float32", "ONNX int8")}
    beside["embed"] = "sentence-transformers encode"
    rows = [["", "sentences/s", "beside", "times", "accuracy", "entity F1", "whole"]]
    for name, rounds in speeds.items():
        other = beside.get(name)
        scored = record["scores"].get(name, {})
        rows.append(
            [
                name,
                f"{middle[name]:,.0f} ({max(rounds):,.0f})",
                other or "",
                f"{middle[name] / middle[other]:.2f}" if other else "",
                *(figure(scored.get(key), ".4f") for key in ("accuracy", "entity_f1", "exact_match")),
            ]
        )
    parts, started = record["seconds_of_a_round"], record["seconds_of_one_sentence"]
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
    for size, run in record["from_a_file"].items():
        lines.append(
            f"A {size} file of {run['sentences']:,}: {run['seconds']:.0f} s, "
            f"{run['sentences_per_second']:,.0f} sentences/s, peak memory {run['megabytes']:,.0f} MB"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
