"""What to freeze: scores, time and memory of each choice.

    python benchmarks/freezing.py [--corpus FOLDER] [--limit N] [--epochs N] [--seeds N] [--jobs N]
        [--keep DIR] [--batch-size N] [--device cpu|cuda] [--backbone NAME] [--output FILE.json]
        [--picture FILE.svg] [key=value ...]

Frozen are in turn: everything, the backbone, its lowest N layers for each N, and nothing; one run has LoRA.
Then task A is trained alone, and task B is added to that model in three ways. The test set is scored with the
model of the last epoch. With --limit each seed draws its own N training rows. The last line is JSON."""

import sys
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.comparison import arguments_of
from benchmarks.names import A
from benchmarks.pictures import check_picture, write_picture
from benchmarks.provenance import finish
from benchmarks.study import DEFAULTS, HEADS, OPTIONS, TRAIN_ALL, Outcome, Run, Study
from benchmarks.study_pictures import score_against_time
from benchmarks.tables import markdown, scores
from multitask.common.shell import run_script
from multitask.encoders.pretrained import find_backbone
from multitask.encoders.validation import read_config

LORA = (*TRAIN_ALL, "model.lora.rank=8", "training.learning_rate=3e-3")
COSTS = {"seconds_per_epoch": ".1f", "total_seconds": ",.0f", "cpu_seconds": ",.0f", "peak_mib": ",.0f"}
_B = "training.task=task_b"


def choices(layers: int) -> list[Run]:
    """The runs, one per row of the table, for an encoder with this number of layers."""
    lowest = [
        Run(f"lowest {n} of {layers} layers frozen", (*TRAIN_ALL, f"model.freeze_layers={n}"))
        for n in range(layers - 1, 0, -1)
    ]
    return [
        Run("everything frozen", epochs=0),
        Run("backbone frozen", HEADS),
        Run("backbone frozen, 10 times the epochs", HEADS, epochs=10),
        *lowest,
        Run("nothing frozen", TRAIN_ALL, keep=True),
        Run("LoRA, rank 8", LORA),
        Run(A, (*TRAIN_ALL, "training.task=task_a"), keep=True),
        Run("… then B, backbone and head A frozen", (*HEADS, _B), start=A),
        Run("… then B, head A frozen, both losses", (*TRAIN_ALL, "model.freeze_task_a=true"), start=A),
        Run("… then B, head A frozen, B's loss alone", (*TRAIN_ALL, _B), start=A),
    ]


def main() -> None:
    options = (*OPTIONS, ("--picture", {"metavar": "FILE.svg", "help": "draw score against time"}))
    arguments, overrides = arguments_of("Compare what can be frozen.", options, **DEFAULTS)
    check_picture(arguments.picture)
    layers = read_config(find_backbone(arguments.backbone, None).folder)["num_hidden_layers"]
    with Study(arguments, overrides) as study:
        results = {name: figures(outcomes) for name, outcomes in study.outcomes(choices(layers)).items()}
        record = study.record(results)
    print(f"{record['corpus']}: {record['rows']:,} training sentences, {record['epochs']} epochs\n")
    print(table(record) + "\n")
    if arguments.picture:
        write_picture(arguments.picture, score_against_time, record)
    finish(record, arguments.output)


def figures(outcomes: list[Outcome]) -> dict:
    """The figures of a choice; those that differ by seed are lists."""
    return {
        "trainable": outcomes[0].trainable,
        "seconds_per_epoch": [sum(outcome.seconds) / max(1, len(outcome.seconds)) for outcome in outcomes],
        "epochs": len(outcomes[0].seconds),
        **{
            name: [getattr(outcome, name) for outcome in outcomes]
            for name in ("total_seconds", "cpu_seconds", "peak_mib", "peak_gpu_mib")
        },
        **{
            name: [outcome.test[name] for outcome in outcomes]
            for name in ("accuracy", "entity_f1", "exact_match")
        },
    }


def table(record: dict) -> str:
    """One row per choice: means over the seeds; scores with their standard deviation."""
    gpu = any(None not in r["peak_gpu_mib"] for r in record["results"].values())
    head = ["frozen", "trainable", "s/epoch", "total s", "CPU s", "peak MiB", *["peak GPU MiB"] * gpu]
    rows = [[*head, "task A accuracy", "task B F1"]]
    for name, r in record["results"].items():
        trained = r["epochs"] > 0
        cells = [name, f"{r['trainable']:,}"]
        for key, form in COSTS.items():
            cells.append(f"{fmean(r[key]):{form}}" if trained else "–")
        if gpu:
            cells.append(f"{fmean(r['peak_gpu_mib']):,.0f}" if trained else "–")
        rows.append([*cells, *(scores(r[name]) for name in ("accuracy", "entity_f1"))])
    return markdown(rows)


if __name__ == "__main__":
    run_script(main)
