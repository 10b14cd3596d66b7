"""What to freeze: each choice's scores, time and memory.

    python benchmarks/freezing.py [--corpus FOLDER] [--limit N] [--epochs N] [--seeds N] [--jobs N]
        [--keep DIR] [--batch-size N] [--device cpu|cuda] [--backbone NAME] [--output FILE.json]
        [--picture FILE.svg] [key=value ...]

Everything frozen, the backbone, its lowest N layers for each N, nothing, LoRA; and a head: task A is learned
alone, then task B is added to it in three ways. The test set is scored with the last epoch's model. With
--limit each seed draws N training rows of its own. The last line is JSON."""

import sys
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.comparison import arguments_of
from benchmarks.provenance import finish
from benchmarks.study import DEFAULTS, OPTIONS, TRAIN_ALL, Outcome, Run, Study, check_picture
from benchmarks.tables import markdown, scores
from multitask.common.shell import run_script
from multitask.encoders.pretrained import find_backbone
from multitask.encoders.validation import read_config

# a line needs a higher rate than an encoder, and does not forget by it
HEADS = ("model.freeze_backbone=true", "training.head_learning_rate=1e-2")
LORA = (*TRAIN_ALL, "model.lora.rank=8", "training.learning_rate=3e-3")
COSTS = {"seconds_per_epoch": ".1f", "total_seconds": ",.0f", "cpu_seconds": ",.0f", "peak_mib": ",.0f"}
A_FIRST = "task A alone"
_B = "training.task=task_b"


def choices(layers: int) -> list[Run]:
    """All rows of the table, for an encoder of so many layers."""
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
        Run(A_FIRST, (*TRAIN_ALL, "training.task=task_a"), keep=True),
        Run("… then B, backbone and head A frozen", (*HEADS, _B), start=A_FIRST),
        Run("… then B, head A frozen, both losses", (*TRAIN_ALL, "model.freeze_task_a=true"), start=A_FIRST),
        Run("… then B, head A frozen, B's loss alone", (*TRAIN_ALL, _B), start=A_FIRST),
    ]


def main() -> None:
    options = (*OPTIONS, ("--picture", {"metavar": "FILE.svg", "help": "draw score against time"}))
    arguments, overrides = arguments_of("Compare what can be frozen.", options, **DEFAULTS)
    check_picture(arguments.picture)
    layers = read_config(find_backbone(arguments.backbone, None).folder)["num_hidden_layers"]
    with Study(arguments, overrides) as study:
        results = {name: row(found) for name, found in study.outcomes(choices(layers)).items()}
        record = study.record(results)
    print(f"{record['corpus']}: {record['rows']:,} training sentences, {record['epochs']} epochs\n")
    print(table(record) + "\n")
    if arguments.picture:
        from benchmarks.study_pictures import score_against_time, write

        write(arguments.picture, score_against_time, record)
    finish(record, arguments.output)


def row(found: list[Outcome]) -> dict:
    """The figures of a choice, those of each seed in a list."""
    return {
        "trainable": found[0].trainable,
        "seconds_per_epoch": [sum(each.seconds) / max(1, len(each.seconds)) for each in found],
        "epochs": len(found[0].seconds),
        **{
            name: [getattr(each, name) for each in found]
            for name in ("total_seconds", "cpu_seconds", "peak_mib", "peak_gpu_mib")
        },
        **{name: [each.test[name] for each in found] for name in ("accuracy", "entity_f1", "exact_match")},
    }


def table(record: dict) -> str:
    """A row a choice; means over the seeds, of scores ± the standard deviation."""
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
