"""Time, memory and disk space for preparing a corpus, by its number of sentences.

    python benchmarks/scale.py [--corpus FOLDER] [--rows N ...] [--output FILE.json]

Each sentence has the class and tags of a random sentence of the corpus, and for each tag a random word that
has this tag in the corpus. Each number of rows is prepared twice, by two processes: the first reads, checks
and encodes the files; the second memory-maps the cache of a large corpus. Anonymous memory cannot be dropped
and read again; reported are that of the whole process, with torch, and its growth during preparation. No
model is loaded. The last line is JSON."""

import argparse
import json
import logging
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.processes import anonymous_memory
from benchmarks.provenance import finish, parse, provenance
from multitask.common.shell import run_script
from multitask.config.loading import load_settings
from multitask.encoders.pretrained import BUNDLED
from multitask.training.preparation import prepare

logger = logging.getLogger("multitask.benchmarks")

MB = 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory before training, by the number of rows.")
    parser.add_argument("--corpus", default=str(ROOT / "corpus"), help="a folder with train.jsonl")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument(
        "--prepare", metavar="FILE", help=argparse.SUPPRESS
    )  # for the processes that it starts
    arguments = parse(parser)
    if arguments.prepare:
        print(json.dumps(measure(arguments.prepare)))
        return
    results = []
    print(f"{'rows':>10}  {'file MB':>8}  {'first s':>8}  {'rows/s':>8}  {'again s':>8}  "
          f"{'anon MB':>8}  {'grown':>8}  {'mapped':>8}  {'disk MB':>8}")  # fmt: skip
    for rows in arguments.rows:
        result = scale(Path(arguments.corpus) / "train.jsonl", rows)
        results.append(result)
        first, again = result["first"], result["again"]
        memory = [max(first[name], again[name]) / MB for name in ("anonymous", "grown")]
        cells = [*memory, again["mapped"] / MB, result["disk"] / MB]
        print(f"{rows:>10,}  {result['file'] / MB:>8,.1f}  {first['seconds']:>8,.2f}  "
              f"{rows / first['seconds']:>8,.0f}  {again['seconds']:>8,.2f}  "
              + "  ".join(f"{cell:>8,.1f}" for cell in cells), flush=True)  # fmt: skip
    record = {
        **provenance(
            arguments.rows, torch.get_num_threads(), ("tokenizers", "numpy")
        ),  # the seed is the number of rows
        "corpus": Path(arguments.corpus).name,
        "results": results,
    }
    finish(record, arguments.output)


def scale(source: Path, rows: int) -> dict:
    """Measure a corpus of this many rows: bytes of its file and cache, and two preparations."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.jsonl"
        write(source, rows, path)
        command = [sys.executable, str(Path(__file__).resolve()), "--prepare", str(path)]
        first, again = (
            json.loads(subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True).stdout)
            for _ in range(2)
        )
        disk = sum(file.stat().st_size for file in Path(folder, "cache").rglob("*") if file.is_file())
        return {"rows": rows, "file": path.stat().st_size, "disk": disk, "first": first, "again": again}


def write(source: Path, rows: int, path: Path) -> None:
    """Write random sentences like those of `source` as JSON Lines."""
    with open(source, encoding="utf-8") as file:
        templates = [row for row in map(json.loads, file) if row.get("tags")]
    words = defaultdict(list)
    for row in templates:
        for word, tag in zip(row["tokens"], row["tags"]):
            words[tag].append(word)
    draw = random.Random(rows)
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(rows):
            row = draw.choice(templates)
            tokens = [draw.choice(words[tag]) for tag in row["tags"]]
            file.write(json.dumps({**row, "tokens": tokens}, ensure_ascii=False) + "\n")


def measure(path: str) -> dict:
    """Prepare a run on a file → seconds, peak bytes of anonymous memory, and bytes of mapped arrays."""
    null = ("data.dev", "data.test", "model.num_classes_task_a", "model.num_labels_task_b")
    overrides = [f"model.backbone={BUNDLED}", f"data.train={path}", *(f"{key}=null" for key in null)]
    settings = load_settings(None, overrides)
    before, peak, done = anonymous(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    prepared = prepare(settings)
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    arrays = prepared.splits["train"].arrays.values()
    mapped = sum(array.nbytes for array in arrays if isinstance(array, np.memmap))
    logger.info(f"{len(prepared.corpora['train']):,} rows in {seconds:.2f} s")
    return {"seconds": seconds, "anonymous": peak[0], "grown": peak[0] - before, "mapped": mapped}


def anonymous() -> int:
    """Bytes of this process's memory that are not backed by a file."""
    if not (found := anonymous_memory("self")):
        raise OSError("this kernel does not report anonymous memory")
    return found


if __name__ == "__main__":
    run_script(main)
