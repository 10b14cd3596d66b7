"""Training and prediction on a GPU, beside transformers.Trainer, the pipelines and sentence-transformers.

    python benchmarks/gpu.py --corpus FOLDER [--limit 4000] [--epochs 3] [--batch-sizes 32,128,512]
        [--tests] [--backbone NAME | --bert-base] [--output FILE.json] [key=value ...]

Takes at most 8 minutes on an H100 or H200. In one process this project, Trainer with its defaults and a tuned
Trainer train the same model; printed are the seconds of every epoch, without start and evaluation. This
project is always the first: what it loads, the others find loaded. Then the heads train on a frozen encoder,
and the test texts are predicted, several times over. With --tests the tests that need CUDA run at the end.
The last line is JSON."""

import json
import statistics
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.comparison import arguments_of, refuse_loss_weights
from benchmarks.names import DEFAULTS, TUNED
from benchmarks.processes import measured
from benchmarks.provenance import ROOT, finish, provenance
from benchmarks.tables import figure, markdown
from multitask.common.device import usable_cpus
from multitask.common.errors import InputError
from multitask.common.shell import run_script
from multitask.config.loading import load_settings
from multitask.config.yaml_reader import format_scalar

OPTIONS = (
    ("--epochs", {"type": int, "default": 3}),
    ("--batch-sizes", {"default": "32,128,512", "metavar": "B,B,..."}),
    ("--tests", {"action": "store_true", "help": "also run the tests that need CUDA"}),
    ("--bert-base", {"action": "store_true", "help": "an encoder of bert-base's size, random weights"}),
)
PACKAGES = ("torch", "transformers", "numpy", "tokenizers")


def main() -> None:
    arguments, overrides = arguments_of("Measure this project on a GPU.", OPTIONS, device="cuda", limit=4000)
    refuse_loss_weights(overrides)
    sizes, corpus = batch_sizes(arguments.batch_sizes), Path(arguments.corpus).resolve()
    check_cuda()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with open(corpus / "train.jsonl", "rb") as source:
            (folder / "train.jsonl").write_bytes(b"".join(islice(source, arguments.limit)))
        backbone = str(folder / "bert-base") if arguments.bert_base else arguments.backbone
        words = [
            f"model.backbone={format_scalar(backbone)}",
            "model.num_classes_task_a=null",
            "model.num_labels_task_b=null",
            "model.token_head=linear",  # the pipelines can't load the other one
            "training.loss_weights={task_a: 1, task_b: 1}",
            "training.checkpoint_every=null",
            f"training.num_epochs={arguments.epochs}",
            f"device={arguments.device}",
            f"data.train={format_scalar(str(folder / 'train.jsonl'))}",
            "data.dev=null",
            f"data.test={format_scalar(str(corpus / 'test.jsonl'))}",
            "cache_dir=null",
            *overrides,
        ]
        settings = load_settings(ROOT / "config.yml", words)
        spec = {
            "overrides": words,
            "sizes": sizes,
            "bert_base": backbone if arguments.bert_base else None,
            "test": str(corpus / "test.jsonl"),
        }
        (folder / "spec.json").write_text(json.dumps(spec))
        files = [str(folder / "spec.json"), str(folder / "result.json")]
        measured([sys.executable, "-m", "benchmarks.gpu_run", *files], ROOT, folder)
        result = json.loads((folder / "result.json").read_text())
    record = {
        **provenance([settings.training.seed], usable_cpus(), PACKAGES),
        "corpus": corpus.name,
        "sentences": arguments.limit,
        "backbone": "bert-base with random weights" if arguments.bert_base else arguments.backbone,
        **result,
        **({"tests": cuda_tests()} if arguments.tests else {}),
    }
    print(text(record))
    finish(record, arguments.output)


def batch_sizes(words: str) -> list[int]:
    """Text such as 32,128 → the numbers. Raises InputError for anything else."""
    try:
        sizes = [int(word) for word in words.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise InputError(f"--batch-sizes is {words}; it must be whole numbers such as 32,128")
    return sizes


def check_cuda() -> None:
    """Raises InputError without a GPU. Asks another process: see processes.py."""
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    if subprocess.run([sys.executable, "-c", code]).returncode:
        raise InputError("this machine has no GPU that torch can use; train_speed.py measures a CPU")


def cuda_tests() -> str:
    """Run the tests marked cuda → pytest's last line. Raises InputError if one fails."""
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-m", "cuda"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if ended.returncode:
        raise InputError(f"a test that needs CUDA failed:\n{ended.stdout[-4000:]}")
    return ended.stdout.strip().splitlines()[-1]


def later(result: dict) -> float:
    """The median seconds of all epochs but the first."""
    return statistics.median(result["seconds"][1:] or result["seconds"])


def training_table(record: dict) -> str:
    """Every contender at every batch size."""
    rows = [["batch", "", "seconds of the epochs", "sentences/s", "× faster Trainer", "peak GPU MiB"]]
    rows[0] += ["test accuracy", "test entity F1"]
    for size, results in record["training"].items():
        fastest = min(later(results[name]) for name in (DEFAULTS, TUNED))
        for name, result in results.items():
            cells = [str(size), name, ", ".join(f"{s:.2f}" for s in result["seconds"])]
            cells += [f"{record['sentences'] / later(result):,.0f}", f"{fastest / later(result):.2f}"]
            cells += [figure(result["peak_gpu_mib"], ",.0f")]
            rows.append([*cells, *(figure(result["test"][s], ".4f") for s in ("accuracy", "entity_f1"))])
    for name, result in record["frozen"].items():
        cells = ["", f"{name}, heads only", ", ".join(f"{s:.2f}" for s in result["seconds"])]
        cells += [f"{record['sentences'] / later(result):,.0f}"]
        cells += [f"{later(record['frozen'][DEFAULTS]) / later(result):.2f}"]
        cells += [figure(result["peak_gpu_mib"], ",.0f")]
        rows.append([*cells, *(figure(result["test"][s], ".4f") for s in ("accuracy", "entity_f1"))])
    return markdown(rows, 2)


def step_table(record: dict) -> str:
    """What a training step of this project does."""
    rows = [["batch", "ms a step", "ms of the host", "kernels", "ms in kernels", "matrix rate used"]]
    for size, results in record["training"].items():
        step = next(result["step"] for result in results.values() if "step" in result)
        cells = [f"{step['ms']:.2f}", f"{step['host_ms']:.2f}", f"{step['kernels']:,.0f}"]
        rows.append([str(size), *cells, f"{step['kernel_ms']:.2f}", f"{step['share_of_matrix_rate']:.1%}"])
    return markdown(rows)


def prediction_table(record: dict) -> str:
    """Texts per second of each contender."""
    speeds = record["texts_per_second"].items()
    return markdown([["", "texts/s"], *([name, f"{speed:,.0f}"] for name, speed in speeds)])


def text(record: dict) -> str:
    """The tables of a record."""
    head = f"{record['corpus']}: {record['sentences']:,} sentences, {record['backbone']}, {record['gpu']}"
    tables = training_table(record), step_table(record), prediction_table(record)
    return "\n\n".join([head, *tables])


if __name__ == "__main__":
    run_script(main)
