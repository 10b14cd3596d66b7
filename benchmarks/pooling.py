"""[CLS] or the mean over tokens: for the class of a sentence, and for how alike two sentences are.

    python benchmarks/pooling.py [--corpus FOLDER] [--limit N] [--epochs N] [--seeds N] [--jobs N]
        [--keep DIR] [--batch-size N] [--device cpu|cuda] [--backbone NAME] [--output FILE.json]
        [key=value ...]

Both poolings, with the backbone frozen and with nothing frozen. Likeness is measured on the test set, by
cosine, for lack of sentence pairs that people have scored: how often the nearest other sentence is of the
same class, and how often a pair of one class is nearer than a pair of two (the area under the ROC curve).
The last line is JSON."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.comparison import arguments_of
from benchmarks.freezing import HEADS
from benchmarks.provenance import finish
from benchmarks.study import DEFAULTS, OPTIONS, TRAIN_ALL, Outcome, Run, Study
from benchmarks.tables import markdown, scores
from multitask.common.shell import run_script

POOLINGS = {"[CLS]": (), "mean": ("model.pooling=mean",)}
TRAINED = {"the heads; the encoder is as it was": HEADS, "everything": TRAIN_ALL}
FIGURES = {
    "accuracy": "task A accuracy",
    "entity_f1": "task B F1",
    "nearest": "nearest is of the class",
    "pairs": "pairs of a class nearer",
}


def main() -> None:
    arguments, overrides = arguments_of("Compare [CLS] and mean pooling.", OPTIONS, **DEFAULTS)
    with Study(arguments, overrides) as study:
        runs = [
            Run(f"{trained}, {pooling}", (*how, *more), keep=True)
            for trained, how in TRAINED.items()
            for pooling, more in POOLINGS.items()
        ]
        results = {name: figures(study, found) for name, found in study.outcomes(runs).items()}
        record = study.record(results)
    print(f"{record['corpus']}: {record['rows']:,} training sentences, {record['epochs']} epochs\n")
    print(markdown(rows_of(record), left=2) + "\n")
    finish(record, arguments.output)


def figures(study: Study, found: list[Outcome]) -> dict[str, list[float | None]]:
    """Of each seed."""
    both = [each.test | likeness(study, each) for each in found]
    return {name: [each[name] for each in both] for name in FIGURES}


def likeness(study: Study, outcome: Outcome) -> dict[str, float]:
    """How near sentences of a class are to each other by a kept model's embeddings."""
    folder = Path(outcome.folder)
    answer = folder / "likeness.json"
    if not answer.is_file():
        study.in_a_process("likeness_run", folder)
    return json.loads(answer.read_text())


def rows_of(record: dict) -> list[list[str]]:
    rows = [["trained", "pooling", *FIGURES.values()]]
    for name, r in record["results"].items():
        trained, _, pooling = name.rpartition(", ")
        rows.append([trained, pooling, *(scores(r[figure]) for figure in FIGURES)])
    return rows


if __name__ == "__main__":
    run_script(main)
