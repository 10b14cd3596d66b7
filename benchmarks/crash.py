"""Runs that are killed at random moments and resumed: this project, and transformers.Trainer beside it.

    python benchmarks/crash.py [--kills N] [--every STEPS] [--sentences N] [--epochs N] [--output FILE.json]

Both fine-tune the embedded encoder on the same sentences of corpus/ and save at the same interval, keeping
two checkpoints. One run of each is left alone; then each is killed (-9) N times, at a moment drawn evenly
from the time between its first checkpoint and its end, and started again, by --resume and by
resume_from_checkpoint=True, which both take the newest checkpoint that they find fit. Counted are the runs
that could be resumed, and those whose last weights are, to the bit, those of the run that was left alone.
The last line is JSON."""

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

SEED = 0  # of the moments of the kills; that of the runs is config.yml's


class Contender(NamedTuple):
    """How a run is begun and resumed, and where it keeps its checkpoints and its last weights."""

    begin: list[str]
    resume: list[str]
    checkpoints: str
    weights: str


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill runs and resume them, beside transformers.Trainer.")
    parser.add_argument("--kills", type=int, default=16)
    parser.add_argument("--every", type=int, default=1, metavar="STEPS", help="between two checkpoints")
    parser.add_argument("--sentences", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--trainer", metavar="FOLDER", help="be one run of Trainer in this folder")
    arguments = parse(parser)
    if arguments.trainer:
        trainer(Path(arguments.trainer), arguments.every)
    else:
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    """Print what became of each contender's runs."""
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
    """The two, as commands that are run in a folder with config.yml and rows.jsonl."""
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
    """Kill and resume a contender's runs → what became of them."""
    chance, failures = random.Random(SEED), []
    alone = begin(folder / "alone", arguments)
    seconds = end(contender, alone, None)
    wanted, killed, resumed, equal = weights(contender, alone), 0, 0, 0
    while killed < arguments.kills:
        run = begin(folder / f"killed-{killed}", arguments)
        if end(contender, run, chance.uniform(0, seconds)) is not None:
            continue  # it was faster than the one that was left alone
        killed += 1
        ended = subprocess.run(contender.resume, cwd=run, capture_output=True, text=True)
        if ended.returncode == 0:
            resumed += 1
            equal += weights(contender, run) == wanted
        else:
            failures.append(ended.stderr.strip().splitlines()[-1])
        print(f"{folder.name}: {killed} killed, {resumed} resumed, {equal} the same", file=sys.stderr)
        shutil.rmtree(run)
    return {"killed": killed, "resumed": resumed, "equal": equal, "failures": failures}


def begin(folder: Path, arguments: argparse.Namespace) -> Path:
    """A folder for a run: sentences and settings."""
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


def end(contender: Contender, folder: Path, after: float | None) -> float | None:
    """Let a run go, and kill it so long after its first checkpoint (None: never) → the seconds from there to
    its end, None where it was killed."""
    process = subprocess.Popen(
        contender.begin, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not list(folder.glob(contender.checkpoints)):
        time.sleep(0.001)
    started = time.monotonic()
    try:
        _, said = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return None
    if process.returncode:
        raise RuntimeError(said)
    return time.monotonic() - started


def weights(contender: Contender, folder: Path) -> str:
    return hashlib.sha256((folder / contender.weights).read_bytes()).hexdigest()


def trainer(folder: Path, every: int) -> None:
    """A run of Trainer on the settings in the current folder, resumed if it has a checkpoint."""
    from safetensors.torch import save_file

    from benchmarks.contenders import make_trainer, trainer_model
    from multitask.config.loading import load_settings
    from multitask.training.preparation import prepare

    settings = load_settings("config.yml")
    prepared = prepare(settings)
    made = make_trainer(
        trainer_model(settings, prepared),
        prepared.corpora["train"],
        settings,
        str(folder),
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
    )
    made.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")))
    state = {name: value.contiguous() for name, value in made.model.state_dict().items()}
    save_file(state, folder / "last.safetensors")


if __name__ == "__main__":
    run_script(main)
