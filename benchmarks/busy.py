"""How long torch's threads wait for each other, on a quiet machine and beside one busy process.

    python benchmarks/busy.py [--rounds 3] [--output FILE.json]

In each round every way of waiting takes a turn, in its own process, first with nothing beside it and then
beside a process that keeps one core busy. Measured are a training step of 32 sentences of corpus/, with
everything trained, and the prediction of one text. The last line is JSON."""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.provenance import finish, parse, provenance
from benchmarks.tables import markdown
from multitask.common.device import prepare_threads, usable_cpus
from multitask.common.errors import InputError
from multitask.common.shell import run_script

STEPS, TEXTS = 16, 60
OURS = "this project's"
WAYS = {  # environment variables of OpenMP
    "torch's own": {},
    OURS: {},  # its process calls prepare_threads
    "no spinning": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure ways of waiting beside a busy process.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parse(parser)
    if arguments.one:
        if arguments.one == OURS:
            prepare_threads()  # before torch is imported
        print(json.dumps(measure()))
        return
    rounds: dict[str, dict[str, list]] = {way: {"quiet": [], "busy": []} for way in WAYS}
    for _ in range(arguments.rounds):
        for machine in ("quiet", "busy"):
            beside = [sys.executable, "-c", "while True: pass"] if machine == "busy" else ["true"]
            with subprocess.Popen(beside) as other:
                try:
                    for way in WAYS:
                        rounds[way][machine].append(run(way))
                finally:
                    other.kill()
    record = {**provenance([0], usable_cpus(), ("torch", "transformers")), "rounds": rounds}
    print(table(record))
    finish(record, arguments.output)


def run(way: str) -> dict[str, float]:
    """Measure in a process that waits in this way."""
    free = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, str(Path(__file__)), "--one", way]
    ended = subprocess.run(command, env={**free, **WAYS[way]}, capture_output=True, text=True, cwd=ROOT)
    if ended.returncode:
        raise InputError(ended.stderr.strip().splitlines()[-1])
    return json.loads(ended.stdout.splitlines()[-1])


def measure() -> dict[str, float]:
    """Median milliseconds of a training step and of the prediction of one text, in this process."""
    import time

    import task_4
    from multitask.config.loading import load_settings
    from multitask.data.texts import read_rows
    from multitask.inference.predictor import Predictor
    from multitask.inference.torch_runner import fast_runner
    from multitask.training.preparation import prepare
    from multitask.training.trainer import Trainer

    words = ["model.freeze_backbone=false", "training.batch_size=32", "device=cpu", "data.dev=null"]
    words += ["model.token_head=linear", "data.test=null", "cache_dir=null"]
    settings = load_settings(ROOT / "config.yml", words)
    prepared = prepare(settings)
    trainer = Trainer(task_4.build(prepared, settings), prepared, settings)
    trainer.model.train()
    steps, texts = [], []
    for windows in [*trainer.batches()][: STEPS + 2]:
        started = time.perf_counter()
        task_4.train_step(trainer, windows)
        steps.append(time.perf_counter() - started)
    predictor = Predictor(fast_runner(trainer.model), prepared.tokenizer, prepared.labels)
    for row in [*read_rows("corpus/test.jsonl")][: TEXTS + 2]:
        started = time.perf_counter()
        predictor.predict([row.text])
        texts.append(time.perf_counter() - started)
    return {"step": 1e3 * statistics.median(steps[2:]), "text": 1e3 * statistics.median(texts[2:])}


def table(record: dict) -> str:
    """Medians of the rounds, and how many times as long it takes beside a busy process."""
    rows = [["threads wait", "ms a step, quiet", "busy", "times", "ms a text, quiet", "busy", "times"]]
    for way, machines in record["rounds"].items():
        row = [way]
        for what in ("step", "text"):
            quiet, busy = (
                statistics.median(run[what] for run in machines[name]) for name in ("quiet", "busy")
            )
            row += [f"{quiet:.0f}", f"{busy:.0f}", f"{busy / quiet:.1f}"]
        rows.append(row)
    return markdown(rows)


if __name__ == "__main__":
    run_script(main)
