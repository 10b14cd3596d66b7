"""Measures training and prediction on a GPU in one process, for gpu.py.

python -m benchmarks.gpu_run SPEC.json RESULT.json"""

import gc
import json
import os
import sys
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "true"  # otherwise the pipelines print warnings

import torch
from torch.profiler import ProfilerActivity, profile

import task_4
from benchmarks.comparison import BERTS_OWN, ROOT
from benchmarks.comparison_facts import save_bert_base
from benchmarks.flops import Shape, Work, training_flops
from benchmarks.gpu_predictions import predictions_per_second
from benchmarks.names import DEFAULTS, OURS, TUNED
from benchmarks.trainer_run import run_trainer
from multitask.common.shell import run_script
from multitask.common.signals import StopSignals
from multitask.config.loading import load_settings
from multitask.data.texts import read_rows
from multitask.encoders.saving import save_model
from multitask.evaluation.evaluate import evaluate
from multitask.training.preparation import Prepared, prepare
from multitask.training.trainer import Trainer

FINE_TUNED, FROZEN = "model.freeze_backbone=false", "model.freeze_backbone=true"
TUNING = {"train_sampling_strategy": "group_by_length", "bf16": True}
_PROFILED = 5  # steps
_SIDE = 8192  # of the square matrices whose product gives the card's rate


def main() -> None:
    spec, result = map(Path, sys.argv[1:])
    words = json.loads(spec.read_text())
    if words["bert_base"]:
        save_bert_base(Path(words["bert_base"]))
    record: dict = {"gpu": torch.cuda.get_device_name(), "matrix_tflops": matrix_rate() / 1e12}
    model = spec.parent / "model"
    record["training"] = {
        size: trained([*words["overrides"], FINE_TUNED, f"training.batch_size={size}"], record, model)
        for size in words["sizes"]
    }
    frozen = [*words["overrides"], FROZEN, f"training.batch_size={words['sizes'][0]}"]
    record["frozen"] = {OURS: ours(frozen), DEFAULTS: theirs(frozen, False)}
    texts = [row.text for row in read_rows(words["test"])]
    record["texts_per_second"] = predictions_per_second(str(model), texts)
    result.write_text(json.dumps(record))


def trained(overrides: list[str], record: dict, model: Path) -> dict[str, dict]:
    """Train once with each contender. This project is the first: what it loads, the others find loaded."""
    return {
        OURS: ours(overrides, record["matrix_tflops"] * 1e12, model),
        DEFAULTS: theirs(overrides, False),
        TUNED: theirs(overrides, True),
    }


def ours(overrides: list[str], rate: float | None = None, model: Path | None = None) -> dict:
    """Train as task_4.py does → seconds of the epochs, test scores, peak memory and, with a rate, what a step
    does. The model is saved to the folder `model`."""
    settings = load_settings(ROOT / "config.yml", overrides)
    prepared = prepare(settings)
    trainer = Trainer(task_4.build(prepared, settings).to("cuda"), prepared, settings)
    seconds, progress = [], trainer.progress
    torch.cuda.reset_peak_memory_stats()
    with StopSignals() as stop:
        task_4.prepare_steps(trainer)
        for _ in range(settings.training.num_epochs):
            task_4.train_epoch(trainer, None, stop)
            seconds.append(progress.seconds)
            progress.epoch, progress.step, progress.seconds = progress.epoch + 1, 0, 0.0
            trainer.reset_losses()
    found = {
        "seconds": seconds,
        "test": evaluate(trainer.model, prepared.corpora["test"], prepared.labels).headline(),
        "peak_gpu_mib": torch.cuda.max_memory_allocated() / 2**20,
        "graphs": trainer.graphs is not None,
    }
    if model:
        trainer.model.eval()
        save_model(trainer.model, prepared.backbone.folder, model)
    if rate:
        found["step"] = step_facts(trainer, prepared, rate)
    del trainer
    empty()
    return found


def theirs(overrides: list[str], tuned: bool) -> dict:
    """Train with transformers.Trainer → seconds of the epochs, test scores and peak memory."""
    torch.cuda.reset_peak_memory_stats()
    report = run_trainer(
        {
            "overrides": [*BERTS_OWN, *overrides],
            "head_rate": None,
            "attention": "sdpa",
            "arguments": TUNING if tuned else {},
        }
    )
    memory = torch.cuda.max_memory_allocated() / 2**20
    empty()
    return {"seconds": report["seconds"], "test": report["test"], "peak_gpu_mib": memory}


def empty() -> None:
    """Free what the last run held on the GPU."""
    gc.collect()
    torch.cuda.empty_cache()


def matrix_rate() -> float:
    """FLOP/s of a large product of random bf16 matrices, the best of five."""
    a, b = (torch.randn(_SIDE, _SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(6):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(10):
            a @ b
        torch.cuda.synchronize()
        seconds.append((time.perf_counter() - started) / 10)
    return 2 * _SIDE**3 / min(seconds[1:])


def step_facts(trainer: Trainer, prepared: Prepared, rate: float) -> dict[str, float]:
    """One more epoch: milliseconds of a step and of the host's part, share of the matrix rate by the real
    tokens; then a few steps under torch's profiler: milliseconds in kernels, and their number."""
    trainer.model.train()
    batches = [trainer.windows[batch] for batch in trainer.sampler.batches(trainer.progress.epoch)]
    torch.cuda.synchronize()
    started = time.perf_counter()
    for windows in batches:
        task_4.train_step(trainer, windows)
    host = (time.perf_counter() - started) / len(batches)
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / len(batches)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for windows in batches[:_PROFILED]:
            task_4.train_step(trainer, windows)
        torch.cuda.synchronize()
    kernels = [event for event in profiler.events() if str(event.device_type).endswith("CUDA")]
    profiled = min(_PROFILED, len(batches))
    config, lengths = trainer.model.config, trainer.corpus.window_lengths[trainer.windows]
    work = Work(len(lengths), int(lengths.sum()), int((lengths**2).sum()))
    shape = Shape(config.hidden_size, config.intermediate_size, config.num_hidden_layers, *prepared.sizes)
    return {
        "ms": seconds * 1e3,
        "host_ms": host * 1e3,
        "kernels": len(kernels) / profiled,
        "kernel_ms": sum(event.device_time for event in kernels) / profiled / 1e3,
        "share_of_matrix_rate": training_flops(shape, work, None) / len(batches) / seconds / rate,
    }


if __name__ == "__main__":
    run_script(main)
