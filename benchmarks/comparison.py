"""Runs of task_4.py and transformers.Trainer on the same data and settings, each in its own process."""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from benchmarks.processes import Spent, measured
from benchmarks.provenance import ROOT, parse, provenance
from multitask.common.device import device_name
from multitask.common.errors import InputError
from multitask.config.loading import load_settings, split_overrides
from multitask.config.schema import Settings
from multitask.config.yaml_reader import format_scalar
from multitask.encoders.pretrained import BUNDLED

SPLITS = ("train", "dev", "test")
BERTS_OWN = ("model.dropout=0.1", "model.attention_dropout=0.1")
SET_HERE = (
    *("model.backbone", "model.freeze", "data.train", "data.dev", "data.test", "device", "output_dir"),
    *("training.task", "training.loss_weighting"),
)


def arguments_of(
    description: str, parser_options: Sequence[tuple], **defaults
) -> tuple[argparse.Namespace, list[str]]:
    """Parse the command line → options, and overrides of config.yml. Raises InputError for what a comparison
    does not allow."""
    overrides, rest = split_overrides(sys.argv[1:])
    parser = argparse.ArgumentParser(description=description, epilog="key=value sets a key of config.yml")
    parser.add_argument(
        "--corpus", required="corpus" not in defaults, help="a folder with train, dev and test.jsonl"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="the first N training rows only")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--backbone", default=BUNDLED, help=f"a folder or a hub name ({BUNDLED})")
    for flag, options in parser_options:
        parser.add_argument(flag, **options)
    parser.set_defaults(**defaults)
    arguments = parse(parser, rest)
    for split in SPLITS:
        if not Path(arguments.corpus, f"{split}.jsonl").is_file():
            raise InputError(f"--corpus: {arguments.corpus} has no {split}.jsonl")
    refuse(overrides, SET_HERE, "the options of this benchmark set it")
    for name in ("limit", "rounds", "epochs"):
        if (value := getattr(arguments, name, None)) is not None and value < 1:
            raise InputError(f"--{name} is {value}; it must be 1 or more")
    try:
        device_name(arguments.device)
    except ValueError as error:
        raise InputError(f"--device: {error}, not {arguments.device}") from None
    return arguments, overrides


def refuse(overrides: Sequence[str], beginnings: tuple[str, ...], reason: str) -> None:
    """Raise InputError for the first override that begins with one of these."""
    for override in overrides:
        if override.startswith(beginnings):
            raise InputError(f"{override}: {reason}")


def refuse_loss_weights(overrides: Sequence[str]) -> None:
    """For comparisons with Trainer, whose model returns one loss. Raises InputError."""
    refuse(overrides, ("training.loss_weights",), "all contenders minimize the sum of both losses")


class Comparison:
    """The settings that all runs share, and a temporary folder for their output. Use it in a `with` block.

    `common` holds the overrides that define the task."""

    def __init__(self, arguments: argparse.Namespace, overrides: list[str], bert_base: bool = False):
        refuse_loss_weights(overrides)
        self._folder = tempfile.TemporaryDirectory()
        self.folder = Path(self._folder.name)
        self.backbone = str(self.folder / "bert-base") if bert_base else arguments.backbone
        self.bert_base = self.backbone if bert_base else None
        self.gpu = None
        if arguments.device.startswith("cuda"):
            self.gpu = int(arguments.device.partition(":")[2] or 0)
        corpus = {split: Path(arguments.corpus, f"{split}.jsonl").resolve() for split in SPLITS}
        if arguments.limit:
            corpus["train"] = self.folder / "train.jsonl"
            with open(Path(arguments.corpus, "train.jsonl"), "rb") as source:
                corpus["train"].write_bytes(b"".join(islice(source, arguments.limit)))
        self.common = [
            f"model.backbone={format_scalar(self.backbone)}",
            "model.num_classes_task_a=null",
            "model.num_labels_task_b=null",
            "training.loss_weights={task_a: 1, task_b: 1}",
            f"training.batch_size={arguments.batch_size}",
            f"device={arguments.device}",
            f"data.train={format_scalar(str(corpus['train']))}",
            # both sides are scored with the model of the last epoch: by default Trainer does not evaluate
            "data.dev=null",
            f"data.test={format_scalar(str(corpus['test']))}",
            *overrides,
        ]
        self._runs = 0

    def __enter__(self) -> "Comparison":
        return self

    def __exit__(self, *_) -> None:
        self._folder.cleanup()

    def settings(self, *overrides: str) -> Settings:
        """The settings of a run with these overrides. Raises InputError if they are wrong."""
        return load_settings(ROOT / "config.yml", [*self.common, *overrides])

    def survey(self, overrides: Sequence[str], ours: dict[str, Sequence[str]]) -> dict:
        """Run comparison_facts.py for the overrides of Trainer's runs and, by name, of this project's."""
        spec = {
            "overrides": self._run(*BERTS_OWN, *overrides),
            "ours": {name: self._run(*changes) for name, changes in ours.items()},
            "bert_base": self.bert_base,
        }
        return self._worker("comparison_facts", spec)[0]

    def ours(self, overrides: Sequence[str]) -> tuple[dict, Spent]:
        """Run task_4.py → the seconds of its epochs as it reports them, and its test scores."""
        words = self._run(*overrides)
        run = self.folder / f"run-{self._runs}"
        command = [sys.executable, str(ROOT / "task_4.py"), f"--config={ROOT / 'config.yml'}", *words]
        spent = measured([*command, f"output_dir={format_scalar(str(run))}"], ROOT, self.folder, self.gpu)
        epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        shutil.rmtree(run)
        return {"seconds": [row["seconds"] for row in epochs[:-1]], "test": epochs[-1]["test"]}, spent

    def trainer(
        self, survey: dict, overrides: Sequence[str], tuned: bool, head_rate: float | None = None
    ) -> tuple[dict, Spent]:
        """Run trainer_run.py with Trainer's defaults, or tuned: batches by length, bf16 where the hardware
        supports it, and the faster attention."""
        seconds = survey["attention_seconds"]
        spec = {
            "overrides": self._run(*BERTS_OWN, *overrides),
            "head_rate": head_rate,
            "attention": min(seconds, key=seconds.get) if tuned else survey["attention"],
            "arguments": {"train_sampling_strategy": "group_by_length", "bf16": survey["bf16"]}
            if tuned
            else {},
        }
        return self._worker("trainer_run", spec)

    def _run(self, *overrides: str) -> list[str]:
        """All overrides of the next run. It has an empty cache: no run profits from an earlier one."""
        if (old := self.folder / f"cache-{self._runs}").exists():
            shutil.rmtree(old)
        self._runs += 1
        fresh = format_scalar(str(self.folder / f"cache-{self._runs}"))
        return [f"cache_dir={fresh}", *self.common, *overrides]

    def _worker(self, module: str, spec: dict) -> tuple[dict, Spent]:
        spec_file, result_file = self.folder / "spec.json", self.folder / "result.json"
        spec_file.write_text(json.dumps(spec))
        command = [sys.executable, "-m", f"benchmarks.{module}", str(spec_file), str(result_file)]
        spent = measured(command, ROOT, self.folder, self.gpu)
        return json.loads(result_file.read_text()), spent


def record(arguments: argparse.Namespace, survey: dict, settings: Settings, results: dict) -> dict:
    """The record for the last line: the results and what they depend on."""
    return {
        **provenance([settings.training.seed], survey["threads"], ("torch", "transformers")),
        "corpus": Path(arguments.corpus).resolve().name,
        "results": results,
        "survey": survey,
    }
