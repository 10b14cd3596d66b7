"""Runs of task_4.py that differ in one choice, over several seeds, each run in its own process.

Finished runs are kept in the folder --keep: an interrupted study resumes there, and two studies share a run
that both need."""

import hashlib
import importlib
import json
import logging
import multiprocessing
import os
import random
import tempfile
from argparse import Namespace
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from benchmarks.processes import check
from benchmarks.provenance import ROOT, gpu, provenance
from multitask.common import shell
from multitask.common.atomic_files import atomic_file
from multitask.common.errors import InputError
from multitask.config.help_text import flatten_settings
from multitask.config.loading import load_settings
from multitask.config.yaml_reader import format_scalar

logger = logging.getLogger("multitask.benchmarks")

OPTIONS = (
    ("--epochs", {"type": int, "default": 3}),
    ("--seeds", {"type": int, "default": 3, "help": "seeds 0, 1, … (3)"}),
    ("--jobs", {"type": int, "default": 2, "help": "runs at once; they share the cores (2)"}),
    ("--keep", {"metavar": "DIR", "help": "keep finished runs in this folder and reuse them"}),
)
DEFAULTS = {"corpus": str(ROOT / "corpus"), "batch_size": 16}
TRAIN_ALL = ("model.freeze_backbone=false",)
# linear heads take a higher rate
HEADS = ("model.freeze_backbone=true", "model.token_head=linear", "training.head_learning_rate=1e-2")
# chosen on EWT's dev set for the bundled encoder, see README
RATES = ("training.learning_rate=2e-4", "training.head_learning_rate=2e-3")
# the arrays of RowCounts in tally.npz; kept runs have these names
TALLY_ARRAYS = ("gold_class", "said_class", "correct", "said", "gold", "whole")


class Run(NamedTuple):
    """One choice of a study: a run for each seed."""

    name: str
    overrides: tuple[str, ...] = ()
    start: str | None = None  # the name of the run whose model it starts from
    share: float = 1.0  # of the training data
    epochs: float = 1.0  # times --epochs; 0: untrained heads
    keep: bool = False  # keep its model


class Outcome(NamedTuple):
    """The result of a run with one seed. Times and memory are measured until its model is saved."""

    trainable: int  # parameters
    sentences: int
    seconds: list[float]  # of each epoch
    total_seconds: float  # wall clock, without importing torch
    cpu_seconds: float  # likewise
    peak_mib: float
    peak_gpu_mib: float | None
    test: dict  # scores of all tasks that the model has learned
    metrics: list[dict]  # lines of metrics.jsonl
    folder: str  # with tally.npz, and the model if kept


class Study:
    """A corpus and the settings that all runs on it share. Use it in a `with` block.

    Attributes:
        common: these settings, as words of a command line; all but train and the encoder.
        backbone: the encoder.
        threads: of each run.
        folder: in which finished runs are kept."""

    def __init__(self, arguments: Namespace, overrides: Sequence[str]):
        for name in ("seeds", "jobs"):
            if (value := getattr(arguments, name)) < 1:
                raise InputError(f"--{name} is {value}; it must be 1 or more")
        self._temporary = None if arguments.keep else tempfile.TemporaryDirectory()
        self.folder = Path(arguments.keep or self._temporary.name).resolve()
        self.seeds, self.jobs, self.epochs = range(arguments.seeds), arguments.jobs, arguments.epochs
        self._locks: dict[Path, Lock] = defaultdict(Lock)  # of the runs' folders
        self.threads = max(1, len(os.sched_getaffinity(0)) // self.jobs)
        self.corpus = Path(arguments.corpus).resolve()
        rows = (self.corpus / "train.jsonl").read_bytes().splitlines(keepends=True)
        self._train, self._limit = [row for row in rows if row.strip()], arguments.limit
        self.test = self.corpus / "test.jsonl"
        self.backbone, self._device = arguments.backbone, arguments.device
        self.common = [
            "model.num_classes_task_a=null",
            "model.num_labels_task_b=null",
            *RATES,
            f"training.batch_size={arguments.batch_size}",
            "training.checkpoint_every=null",
            f"device={arguments.device}",
            # every run is scored with the model of its last epoch: choosing an epoch is another question
            "data.dev=null",
            "data.test=null",
            "cache_dir=null",
            *overrides,
        ]
        load_settings(ROOT / "config.yml", self.common)  # reports wrong settings before anything runs
        # runs are forked from a process that has imported torch, which saves seconds for each
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(["benchmarks.study_run"])

    def __enter__(self) -> "Study":
        return self

    def __exit__(self, *_) -> None:
        if self._temporary:
            self._temporary.cleanup()

    def use_rows(self, rows: list[bytes]) -> None:
        """Train on these lines of JSON instead of those of the corpus."""
        self._train = rows

    def outcomes(self, runs: Sequence[Run], seeds: Sequence[int] | None = None) -> dict[str, list[Outcome]]:
        """Run everything with every seed (None: those of the study) → run's name → an Outcome per seed."""
        seeds, started = self.seeds if seeds is None else seeds, {}
        total = len(runs) * len(seeds)
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                # runs that start from another run's model come last: the others have been submitted then
                for run, seed in sorted(product(runs, seeds), key=lambda pair: pair[0].start is not None):
                    start = started.get((run.start, seed))
                    started[run.name, seed] = pool.submit(self._outcome, run, seed, start)
                for number, ((name, seed), future) in enumerate(started.items(), 1):
                    outcome = future.result()
                    logger.info(f"{number}/{total}: {name}, seed {seed}: {outcome.total_seconds:.1f} s")
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return {run.name: [started[run.name, seed].result() for seed in seeds] for run in runs}

    def record(self, results: dict) -> dict:
        """Results with their provenance, as the last line has them."""
        return {
            **provenance(self.seeds, self.threads, ("torch", "transformers")),
            "corpus": self.corpus.name,
            "rows": len(self._train[: self._limit]),
            "epochs": self.epochs,
            "jobs": self.jobs,
            **gpu(self._device),
            "results": results,
        }

    def _outcome(self, run: Run, seed: int, start: Future | None) -> Outcome:
        """A run with one seed: a kept one, or run now."""
        begin = start.result().folder if start else None
        train = self.rows(seed, run.share)
        epochs = max(1, round(self.epochs * run.epochs))
        words = [*self.common, f"training.num_epochs={epochs}", f"training.seed={seed}", *run.overrides]
        trained = run.epochs > 0
        backbone = Path(begin).name if begin else self.backbone
        settings = flatten_settings(load_settings(ROOT / "config.yml", words))
        facts = json.dumps([settings, trained, backbone, self.threads]).encode()
        key = b"\0".join([facts, self.test.read_bytes(), *train])  # all that it depends on except code
        folder = self.folder / hashlib.sha256(key).hexdigest()[:16]
        words.append(f"data.train={format_scalar(str(folder / 'train.jsonl'))}")
        words.append(f"model.backbone={format_scalar(f'{begin}/model' if begin else self.backbone)}")
        spec = {"overrides": words, "trained": trained, "keep": run.keep, "test": str(self.test)}
        with self._locks[folder]:  # an equal run waits for the first one
            return self._run_or_kept(folder, train, spec | {"threads": self.threads})

    def _run_or_kept(self, folder: Path, train: list[bytes], spec: dict) -> Outcome:
        """The outcome that the folder holds, or that of a run there."""
        result = folder / "outcome.json"
        if not result.is_file() or (spec["keep"] and not (folder / "model").is_dir()):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "train.jsonl").write_bytes(b"".join(train))
            with atomic_file(folder / "spec.json") as file:
                file.write(json.dumps(spec).encode())
            self.run_in_process("study_run", folder)
        return Outcome(**json.loads(result.read_text()), folder=str(folder))

    def run_in_process(self, module: str, folder: Path) -> None:
        """Call main(folder) of a module of benchmarks/ in a new process that has torch imported.

        Raises InputError with the last message of the process if it fails."""
        process = self._processes.Process(target=_main_of, args=(module, folder))
        process.start()
        process.join()
        check(process.exitcode, (folder / "stderr").read_text(errors="replace"))

    def rows(self, seed: int, share: float) -> list[bytes]:
        """A share of the training rows in an order drawn with the seed, or all rows in their own order.

        A smaller share is part of a larger one, and the spread over seeds includes that over data."""
        if self._limit is None and share == 1:
            return self._train
        rows = random.Random(seed).sample(self._train, len(self._train))[: self._limit]
        return rows[: max(1, round(len(rows) * share))]


def _main_of(module: str, folder: Path) -> None:
    """Run in a forked process, with its messages in the file `stderr` of the folder."""
    with open(folder / "stderr", "w") as messages, open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 1)
        os.dup2(messages.fileno(), 2)
    main = importlib.import_module(f"benchmarks.{module}").main
    shell.run_script(lambda: main(folder))
