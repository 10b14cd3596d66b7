"""One run of study.py in its own process.

It trains with the code of task_4.py, and then scores the model on the test set in all tasks that it has
learned; task_4.py itself scores only the tasks that this run trained."""

import json
import resource
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch

import task_4
from benchmarks.provenance import ROOT
from benchmarks.study import TALLY_ARRAYS
from multitask.common.atomic_files import atomic_file
from multitask.common.device import choose_device
from multitask.config.loading import load_settings
from multitask.data.labels import labels_from_config
from multitask.encoders.pretrained import load_model, load_tokenizer
from multitask.evaluation.evaluate import evaluate_file
from multitask.inference.predictor import Predictor
from multitask.training.preparation import configure_model, prepare


def main(folder: Path) -> None:
    """Train as spec.json in the folder says, and write outcome.json and tally.npz."""
    started = time.perf_counter()
    spec = json.loads((folder / "spec.json").read_text())
    torch.set_num_threads(spec["threads"])
    config, out = str(ROOT / "config.yml"), folder / "run"
    shutil.rmtree(out, ignore_errors=True)  # left by an interrupted run
    settings = load_settings(config, spec["overrides"])
    device = choose_device(settings.device)
    outcome = {"seconds": [], "metrics": []}
    if spec["trained"]:
        sys.argv = ["task_4.py", f"--config={config}", f"output_dir={out}", *spec["overrides"]]
        task_4.main()
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][:-1]
        outcome = {"seconds": [row["seconds"] for row in rows], "metrics": rows}
    used = resource.getrusage(resource.RUSAGE_SELF)
    outcome |= {
        "total_seconds": time.perf_counter() - started,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_mib": used.ru_maxrss / 1024,
        "peak_gpu_mib": torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None,
    }
    prepared = prepare(settings)
    model = task_4.build(prepared, settings)
    outcome["sentences"] = len(prepared.corpora["train"])
    outcome["trainable"] = trainable(model, settings, prepared) if spec["trained"] else 0
    predictor = Predictor(model, prepared.tokenizer, prepared.labels)
    if spec["trained"]:
        model = load_model(task_4.MultiTaskTransformer, out / "model").to(device)
        predictor = Predictor(model, load_tokenizer(out / "model"), labels_from_config(model.config))
    evaluation = evaluate_file(predictor, folder.name, spec["test"])
    outcome["test"] = evaluation.scores.headline()
    np.savez(folder / "tally.npz", **dict(zip(TALLY_ARRAYS, evaluation.row_counts())))
    if spec["keep"]:
        shutil.rmtree(folder / "model", ignore_errors=True)
        (out / "model").rename(folder / "model")
    shutil.rmtree(out, ignore_errors=True)
    with atomic_file(folder / "outcome.json") as file:
        file.write(json.dumps(outcome).encode())


def trainable(model, settings, prepared) -> int:
    """The number of parameters that these settings train. Changes the model."""
    every_row = settings.training.model_copy(update={"occurring_rows": False})
    settings = settings.model_copy(update={"training": every_row})
    configure_model(model, prepared.corpora["train"], settings, "sdpa")
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
