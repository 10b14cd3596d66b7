"""A teacher, students of fewer layers, and the same students taught by it: scores, size and speed.

    python benchmarks/distil.py --corpus FOLDER [--labelled N] [--unlabelled N] [--dev N] [--layers 3 2]
        [--epochs N] [--seeds N] [--jobs N] [--rounds N] [--keep DIR] [--output FILE.json] [key=value ...]

A part of the corpus keeps its labels; another part loses them. The teacher, the installed encoder, learns the
labelled part. A student begins with some of the same encoder's layers (`model.keep_layers`). Alone it learns
the labelled part; taught, both parts, for --epochs epochs. All models take about as many steps, and dev
chooses the best epoch. Speed is that of prediction, a round of all models after the other. Finished runs in
--keep are used again. The last line is JSON."""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.comparison import SET_HERE, refuse
from benchmarks.names import SCORE_TITLES
from benchmarks.processes import check
from benchmarks.provenance import finish, parse, provenance
from benchmarks.scores import test
from benchmarks.tables import markdown, scores
from multitask.common.device import prepare_threads
from multitask.common.errors import InputError
from multitask.common.shell import run_script
from multitask.config.loading import split_overrides
from multitask.config.yaml_reader import format_scalar

BATCH = 32
SETTINGS = (
    "model.backbone=all-MiniLM-L6-v2",
    "model.num_classes_task_a=null",
    "model.num_labels_task_b=null",
    "model.freeze_backbone=false",
    "data.tag_scheme=BIO",
    f"training.batch_size={BATCH}",
    "training.learning_rate=2e-4",
    "training.head_learning_rate=2e-3",
    "training.checkpoint_every=null",
    "device=cpu",
    "cache_dir=null",
)
TEACHER, ALONE, TAUGHT = "teacher", "alone", "taught"


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare students with and without a teacher.")
    parser.add_argument("--corpus", required=True, metavar="FOLDER", help="train, dev and test.jsonl")
    parser.add_argument("--labelled", type=int, default=1000, help="sentences with labels (1000)")
    parser.add_argument("--unlabelled", type=int, default=3000, help="sentences without (3000)")
    parser.add_argument("--dev", type=int, default=300, help="sentences of dev that choose the epoch (300)")
    parser.add_argument("--layers", type=int, nargs="+", default=[3, 2], help="of the students (3 2)")
    parser.add_argument("--epochs", type=int, default=3, help="over both parts (3)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, … (3)")
    parser.add_argument("--jobs", type=int, default=1, help="seeds at once (1)")
    parser.add_argument("--rounds", type=int, default=5, help="of the measurement of speed (5)")
    parser.add_argument("--keep", metavar="DIR", help="keep runs here, and use finished ones")
    overrides, words = split_overrides(sys.argv[1:])
    arguments = parse(parser, words)
    refuse(overrides, (*SET_HERE, "model.keep_layers"), "the options of this benchmark set it")
    prepare_threads()  # before torch is imported
    for split in ("train", "dev", "test"):
        if not Path(arguments.corpus, f"{split}.jsonl").is_file():
            raise InputError(f"--corpus: {arguments.corpus} has no {split}.jsonl")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.keep or temporary).resolve()
        seeds = range(arguments.seeds)
        with ThreadPoolExecutor(arguments.jobs) as pool:
            of_seed = list(
                pool.map(lambda seed: train_all(arguments, overrides, folder / f"seed-{seed}", seed), seeds)
            )
        names = list(of_seed[0])
        models = {name: folder / "seed-0" / name / "model" for name in names}
        record = {
            **provenance(list(seeds), threads(), ("torch", "transformers")),
            "corpus": Path(arguments.corpus).name,
            "labelled": arguments.labelled,
            "unlabelled": arguments.unlabelled,
            "dev": arguments.dev,
            "epochs": arguments.epochs,
            "results": {name: [runs[name] for runs in of_seed] for name in names},
            "bytes": {name: (model / "model.safetensors").stat().st_size for name, model in models.items()},
            "texts_per_second": speeds(models, Path(arguments.corpus, "test.jsonl"), arguments.rounds),
        }
    print(table(record))
    finish(record, arguments.output)


def train_all(
    arguments: argparse.Namespace, overrides: Sequence[str], folder: Path, seed: int
) -> dict[str, dict]:
    """Train the teacher and all students with one seed → the test scores of each."""
    folder.mkdir(parents=True, exist_ok=True)
    labelled, unlabelled = write_parts(arguments, folder, seed)
    steps = arguments.epochs * -(-(arguments.labelled + arguments.unlabelled) // BATCH)
    own = [f"data.train={labelled}", f"training.num_epochs={round(steps / -(-arguments.labelled // BATCH))}"]
    both = [f"data.train={format_scalar([labelled, unlabelled])}", f"training.num_epochs={arguments.epochs}"]
    runs = {TEACHER: own}
    for layers in arguments.layers:
        keep = f"model.keep_layers={layers}"
        runs[f"{layers} {ALONE}"] = [keep, *own]
        runs[f"{layers} {TAUGHT}"] = [keep, *both, f"distillation.teacher={folder / TEACHER / 'model'}"]
    splits = [
        f"data.dev={folder / 'dev.jsonl'}",
        f"data.test={Path(arguments.corpus, 'test.jsonl').resolve()}",
    ]
    for name, words in runs.items():
        train(folder / name, [*SETTINGS, *splits, *words, *overrides, f"training.seed={seed}"])
    return {name: test(folder / name) for name in runs}


def write_parts(arguments: argparse.Namespace, folder: Path, seed: int) -> tuple[str, str]:
    """Draw both parts of train, and cut dev → the files of both parts."""
    rows = Path(arguments.corpus, "train.jsonl").read_text(encoding="utf-8").splitlines()
    if arguments.labelled + arguments.unlabelled > len(rows):
        raise InputError(f"--unlabelled: train has only {len(rows):,} sentences")
    drawn = random.Random(seed).sample(rows, arguments.labelled + arguments.unlabelled)
    read = map(json.loads, drawn[arguments.labelled :])
    bare = [json.dumps({key: row[key] for key in ("text", "tokens") if key in row}) for row in read]
    files = []
    dev = Path(arguments.corpus, "dev.jsonl").read_text(encoding="utf-8").splitlines()[: arguments.dev]
    for name, part in (("labelled", drawn[: arguments.labelled]), ("unlabelled", bare), ("dev", dev)):
        file = folder / f"{name}.jsonl"
        file.write_text("".join(f"{row}\n" for row in part), encoding="utf-8")
        files.append(str(file))
    return files[0], files[1]


def train(run: Path, words: Sequence[str]) -> None:
    """Run task_4.py, unless the run is finished. Raises InputError if it had other settings."""
    settings = run.with_name(f"{run.name}.json")
    try:
        test(run)
    except InputError:
        shutil.rmtree(run, ignore_errors=True)
    else:
        if not settings.is_file() or json.loads(settings.read_text()) != [*words]:
            raise InputError(f"--keep: {run} was trained with other settings; use another folder")
        return
    settings.write_text(json.dumps([*words]))
    config = f"--config={ROOT / 'config.yml'}"
    command = [sys.executable, str(ROOT / "task_4.py"), config, f"output_dir={run}", *words]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=run.parent)
    check(ended.returncode, ended.stderr)


def speeds(models: dict[str, Path], file: Path, rounds: int) -> dict[str, list[float]]:
    """Texts a second that each model predicts, in every round."""
    from multitask.data.texts import read_rows
    from multitask.inference.predictor import Predictor

    texts = [row.text for row in read_rows(str(file))]
    predictors = {name: Predictor.from_pretrained(folder, "cpu") for name, folder in models.items()}
    measured: dict[str, list[float]] = {name: [] for name in models}
    for number in range(rounds + 1):
        for name, predictor in predictors.items():
            started = time.perf_counter()
            predictor.predict(texts)
            if number:  # the first round does not count
                measured[name].append(len(texts) / (time.perf_counter() - started))
    return measured


def threads() -> int:
    """The threads of torch, in this process and in the runs."""
    import torch

    return torch.get_num_threads()


def table(record: dict) -> str:
    """Scores over the seeds, the size of the weights, and the median speed."""
    rows = [["model", "learns from", *SCORE_TITLES.values(), "MB", "texts/s"]]
    for name, results in record["results"].items():
        layers, _, how = name.rpartition(" ")
        label = f"{record['labelled']:,} labelled"
        if how == TAUGHT:
            label += f", {record['unlabelled']:,} unlabelled, the teacher"
        figures = [scores([result[figure] for result in results]) for figure in SCORE_TITLES]
        speed = statistics.median(record["texts_per_second"][name])
        title = "teacher, 6 layers" if how == TEACHER else f"student, {layers} layers"
        rows.append([title, label, *figures, f"{record['bytes'][name] / 1e6:.0f}", f"{speed:,.0f}"])
    return markdown(rows, left=2)


if __name__ == "__main__":
    run_script(main)
