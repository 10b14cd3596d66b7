"""Runs that are killed at random moments and resumed: this project and transformers.Trainer.

    python benchmarks/crash.py [--kills N] [--every STEPS] [--sentences N] [--epochs N] [--output FILE.json]

Both fine-tune the bundled encoder on the same sentences of corpus/ and save at the same interval, keeping two
checkpoints. One run of each is not interrupted. Then N runs of each are killed (SIGKILL), at a moment drawn
uniformly between the first checkpoint and the end, and resumed with --resume or resume_from_checkpoint=True;
both use the newest checkpoint that they find usable. Counted are the runs that could be resumed, and those
whose final weights are bit-identical with those of the uninterrupted run. The last line is JSON."""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.provenance import finish, parse, provenance
from benchmarks.tables import markdown
from multitask.common.shell import run_script

SEED = 0  # of the moments of the kills; the runs have the seed of config.yml


class Contender(NamedTuple):
    """How to start and resume a run, and where it stores checkpoints and final weights."""

    start: list[str]  # commands, run in the folder of the run
    resume: list[str]
    checkpoints: str  # a glob pattern
    weights: str


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill runs and resume them, beside transformers.Trainer.")
    parser.add_argument("--kills", type=int, default=16)
    parser.add_argument("--every", type=int, default=1, metavar="STEPS", help="between two checkpoints")
    parser.add_argument("--sentences", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--trainer", metavar="FOLDER", help="only run Trainer once, in this folder")
    arguments = parse(parser)
    if arguments.trainer:
        trainer(Path(arguments.trainer), arguments.every)
    else:
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    """Kill and resume runs of each contender, and print the counts."""
    with tempfile.TemporaryDirectory() as folder:
        results = {
            name: attempt(contender, Path(folder, str(number)), arguments)
            for number, (name, contender) in enumerate(contenders(arguments).items())
        }
    rows = [["", "killed", "resumed", "the same weights"]]
    for name, result in results.items():
        rows.append([name, *(str(result[key]) for key in ("killed", "resumed", "equal"))])
    print(markdown(rows))
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count()))
    packages = ("torch", "transformers", "accelerate")
    finish({**provenance([SEED], threads, packages), "results": results}, arguments.output)


def contenders(arguments: argparse.Namespace) -> dict[str, Contender]:
    """Both contenders, as commands for a folder with config.yml and rows.jsonl."""
    task_4 = [sys.executable, str(ROOT / "task_4.py")]
    script = [sys.executable, str(ROOT / "benchmarks/crash.py"), f"--every={arguments.every}"]
    save = f"training.checkpoint_every={arguments.every}"
    return {
        "task_4.py": Contender(
            [*task_4, save, "output_dir=run"],
            [*task_4, "--resume", "run"],
            "run/checkpoints/step-*",
            "run/model/model.safetensors",
        ),
        "transformers.Trainer": Contender(
            [*script, "--trainer=run"], [*script, "--trainer=run"], "run/checkpoint-*", "run/last.safetensors"
        ),
    }


def attempt(contender: Contender, folder: Path, arguments: argparse.Namespace) -> dict:
    """Kill and resume runs of a contender → how many were killed, resumed and equal, and error messages."""
    draw, failures = random.Random(SEED), []
    alone = prepare_folder(folder / "alone", arguments)
    seconds = run_or_kill(contender, alone, None)
    expected, killed, resumed, equal = weights_checksum(contender, alone), 0, 0, 0
    while killed < arguments.kills:
        run = prepare_folder(folder / f"killed-{killed}", arguments)
        if run_or_kill(contender, run, draw.uniform(0, seconds)) is not None:
            continue  # it ended earlier than the uninterrupted run
        killed += 1
        ended = subprocess.run(contender.resume, cwd=run, capture_output=True, text=True)
        if ended.returncode == 0:
            resumed += 1
            equal += weights_checksum(contender, run) == expected
        else:
            failures.append(ended.stderr.strip().splitlines()[-1])
        print(f"{folder.name}: {killed} killed, {resumed} resumed, {equal} the same", file=sys.stderr)
        shutil.rmtree(run)
    return {"killed": killed, "resumed": resumed, "equal": equal, "failures": failures}


def prepare_folder(folder: Path, arguments: argparse.Namespace) -> Path:
    """Create the folder of a run, with its sentences and settings."""
    from multitask.config.help_text import render_config
    from multitask.config.loading import load_settings

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with open(ROOT / "corpus/train.jsonl", encoding="utf-8") as file:
        (folder / "rows.jsonl").write_text("".join(list(file)[: arguments.sentences]), encoding="utf-8")
    overrides = [
        "model.backbone=all-MiniLM-L6-v2",
        "model.freeze_backbone=false",
        "model.num_classes_task_a=null",
        "model.num_labels_task_b=null",
        "data.train=rows.jsonl",
        "data.dev=null",
        "data.test=null",
        f"training.num_epochs={arguments.epochs}",
        "training.learning_rate=1e-4",
        "device=cpu",
        "cache_dir=null",
    ]
    (folder / "config.yml").write_text(render_config(load_settings(None, overrides)), encoding="utf-8")
    return folder


def run_or_kill(contender: Contender, folder: Path, after: float | None) -> float | None:
    """Start a run and kill it `after` seconds from its first checkpoint (None: never) → the seconds from that
    checkpoint to its end, or None if it was killed."""
    process = subprocess.Popen(
        contender.start, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not list(folder.glob(contender.checkpoints)):
        time.sleep(0.001)
    started = time.monotonic()
    try:
        _, messages = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return None
    if process.returncode:
        raise RuntimeError(messages)
    return time.monotonic() - started


def weights_checksum(contender: Contender, folder: Path) -> str:
    return hashlib.sha256((folder / contender.weights).read_bytes()).hexdigest()


def trainer(folder: Path, every: int) -> None:
    """Run Trainer with config.yml of the current folder; resume if `folder` has a checkpoint."""
    from safetensors.torch import save_file

    from benchmarks.trainer_run import make_trainer, trainer_model
    from multitask.config.loading import load_settings
    from multitask.training.preparation import prepare

    settings = load_settings("config.yml")
    prepared = prepare(settings)
    run = make_trainer(
        trainer_model(settings, prepared),
        prepared.corpora["train"],
        settings,
        str(folder),
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
    )
    run.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")))
    state = {name: value.contiguous() for name, value in run.model.state_dict().items()}
    save_file(state, folder / "last.safetensors")


if __name__ == "__main__":
    run_script(main)
