"""The cost of a checkpoint, compared with a plain write and fsync of the same number of bytes.

    python benchmarks/checkpoints.py [--rounds N] [--backbone NAME] [--output FILE.json] [key=value ...]

A run fine-tunes the encoder on corpus/ for a few steps. In each round it then writes a checkpoint (with its
checksums and renames, but without the removal of the oldest one, which happens during the next steps), and a
file of the same number of bytes is written and synced. Printed are the medians, their ratio, and the share of
the time that one checkpoint per minute takes. The last line is JSON."""

import argparse
import os
import statistics
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import task_4
from benchmarks.provenance import finish, parse, provenance
from multitask.common.device import choose_device
from multitask.common.shell import run_script
from multitask.config.loading import load_settings, split_overrides
from multitask.encoders.pretrained import BUNDLED
from multitask.training.checkpoint import Checkpoints
from multitask.training.preparation import prepare
from multitask.training.progress import copy_learned_tensors, tensor_files
from multitask.training.trainer import Trainer

STEPS = 3


def main() -> None:
    overrides, words = split_overrides(sys.argv[1:])
    parser = argparse.ArgumentParser(description="Time checkpoints beside a plain write of as many bytes.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--backbone", default=BUNDLED)
    arguments = parse(parser, words)
    trainer = trained(
        [f"model.backbone={arguments.backbone}", "model.freeze_backbone=false", "device=cpu", *overrides]
    )
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        seconds, plain, size = measure(trainer, folder, arguments.rounds)
    ratio, minute = seconds / plain, seconds / 60
    print(
        f"{size / 1e6:.0f} MB: a checkpoint takes {seconds:.2f} s, plain writing {plain:.2f} s: {ratio:.2f}"
    )
    print(f"one a minute takes {minute:.1%} of the time")
    record = {
        **provenance([trainer.settings.training.seed], torch.get_num_threads(), ("torch", "safetensors")),
        "megabytes": round(size / 1e6, 1),
        "checkpoint_seconds": round(seconds, 3),
        "plain_seconds": round(plain, 3),
        "ratio": round(ratio, 2),
        "share_of_a_minute": round(minute, 4),
    }
    finish(record, arguments.output)


def trained(overrides: list[str]) -> Trainer:
    """A run after a few steps, when everything that a checkpoint stores exists."""
    settings = load_settings(ROOT / "config.yml", overrides)
    prepared = prepare(settings)
    trainer = Trainer(task_4.build(prepared, settings).to(choose_device(settings.device)), prepared, settings)
    trainer.model.train()
    for windows in islice(trainer.batches(), STEPS):
        task_4.train_step(trainer, windows)
        trainer.progress.step += 1
    trainer.best = copy_learned_tensors(trainer)
    return trainer


def measure(trainer: Trainer, folder: Path, rounds: int) -> tuple[float, float, int]:
    """Median seconds of a checkpoint, and of a plain write of its bytes, side by side; the bytes."""
    checkpoints, times = Checkpoints(folder / "checkpoints"), {"checkpoint": [], "plain": []}
    for number in range(rounds + 2):  # the first two remove none
        started = time.perf_counter()
        state = trainer.state_dict()
        facts = {name: value for name, value in state.items() if name != "tensors"}
        checkpoints.save(number, facts, tensor_files(state))
        times["checkpoint"].append(time.perf_counter() - started)
        checkpoints.wait()  # a run removes the oldest during its next steps
        files = list(checkpoints.good[-1].iterdir())
        size = sum(file.stat().st_size for file in files)
        content = os.urandom(1 << 20) * (size // (1 << 20) + 1)
        started = time.perf_counter()
        with open(folder / "plain", "wb") as file:
            file.write(memoryview(content)[:size])
            file.flush()
            os.fsync(file.fileno())
        times["plain"].append(time.perf_counter() - started)
        (folder / "plain").unlink()
    checkpoint, plain = (statistics.median(seconds[2:]) for seconds in times.values())
    return checkpoint, plain, size


if __name__ == "__main__":
    run_script(main)
