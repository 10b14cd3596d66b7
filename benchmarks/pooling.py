"""[CLS] pooling against mean pooling: for the class of a sentence, and for the similarity of sentences.

    python benchmarks/pooling.py [--corpus FOLDER] [--limit N] [--epochs N] [--seeds N] [--jobs N]
        [--keep DIR] [--batch-size N] [--device cpu|cuda] [--backbone NAME] [--output FILE.json]
        [key=value ...]

Both poolings, with the backbone frozen and with nothing frozen. There are no sentence pairs with similarity
scores; cosine similarity is therefore measured on the classes of the test set: how often the nearest other
sentence has the same class, and how often a pair of one class is nearer than a pair of two classes (the area
under the ROC curve). The last line is JSON."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.comparison import arguments_of
from benchmarks.provenance import finish
from benchmarks.study import DEFAULTS, HEADS, OPTIONS, TRAIN_ALL, Outcome, Run, Study
from benchmarks.tables import markdown, scores
from multitask.common.shell import run_script

POOLINGS = {"[CLS]": ("model.pooling=cls",), "mean": ("model.pooling=mean",)}
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
            Run(f"{trained}, {pooling}", (*how, *changes), keep=True)
            for trained, how in TRAINED.items()
            for pooling, changes in POOLINGS.items()
        ]
        results = {name: figures(study, outcomes) for name, outcomes in study.outcomes(runs).items()}
        record = study.record(results)
    print(f"{record['corpus']}: {record['rows']:,} training sentences, {record['epochs']} epochs\n")
    print(markdown(rows_of(record), left=2) + "\n")
    finish(record, arguments.output)


def figures(study: Study, outcomes: list[Outcome]) -> dict[str, list[float | None]]:
    """The scores and similarities of each seed."""
    both = [outcome.test | similarity(study, outcome) for outcome in outcomes]
    return {name: [results[name] for results in both] for name in FIGURES}


def similarity(study: Study, outcome: Outcome) -> dict[str, float]:
    """How similar the sentences of a class are, by the embeddings of a kept model."""
    folder = Path(outcome.folder)
    result = folder / "likeness.json"  # kept runs have this name
    if not result.is_file():
        study.run_in_process("similarity_run", folder)
    return json.loads(result.read_text())


def rows_of(record: dict) -> list[list[str]]:
    rows = [["trained", "pooling", *FIGURES.values()]]
    for name, r in record["results"].items():
        trained, _, pooling = name.rpartition(", ")
        rows.append([trained, pooling, *(scores(r[figure]) for figure in FIGURES)])
    return rows


if __name__ == "__main__":
    run_script(main)
