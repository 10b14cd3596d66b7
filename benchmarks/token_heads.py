"""The linear token head, the convolution and the CRF, with the backbone frozen and with nothing frozen.

    python benchmarks/token_heads.py [--corpus FOLDER] [--limit N] [--epochs N] [--seeds N] [--jobs N]
        [--keep DIR] [--batch-size N] [--device cpu|cuda] [--backbone NAME] [--output FILE.json]
        [key=value ...]

Both tasks are trained. Heads on a frozen backbone have the default rate, 1e-3, and the linear one also ten
times that. The last line is JSON."""

import sys
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.comparison import arguments_of
from benchmarks.names import SCORE_TITLES
from benchmarks.provenance import finish
from benchmarks.study import DEFAULTS, HEADS, OPTIONS, TRAIN_ALL, Run, Study
from benchmarks.tables import markdown, scores
from multitask.common.shell import run_script

FROZEN = ("model.freeze_backbone=true", "training.head_learning_rate=1e-3")
HEAD_NAMES = {
    "linear": "linear",
    "convolution": "convolution",
    "window_crf": "three tokens, CRF",
    "convolution_crf": "convolution, CRF",
}
RUNS = {
    ("the heads, rate × 10", "linear"): HEADS,
    **{
        (trained, name): (*overrides, f"model.token_head={kind}")
        for trained, overrides in (("the heads", FROZEN), ("everything", TRAIN_ALL))
        for kind, name in HEAD_NAMES.items()
    },
}


def main() -> None:
    arguments, overrides = arguments_of("Compare kinds of token heads.", OPTIONS, **DEFAULTS)
    with Study(arguments, overrides) as study:
        runs = [Run(", ".join(names), changes) for names, changes in RUNS.items()]
        results = {
            name: {figure: [outcome.test[figure] for outcome in outcomes] for figure in SCORE_TITLES}
            | {"cpu_seconds": [outcome.cpu_seconds for outcome in outcomes]}
            for name, outcomes in study.outcomes(runs).items()
        }
        record = study.record(results)
    print(f"{record['corpus']}: {record['rows']:,} training sentences, {record['epochs']} epochs\n")
    print(markdown(rows_of(record), left=2) + "\n")
    finish(record, arguments.output)


def rows_of(record: dict) -> list[list[str]]:
    rows = [["trained", "token head", *SCORE_TITLES.values(), "CPU s"]]
    for names in RUNS:
        r = record["results"][", ".join(names)]
        seconds = f"{fmean(r['cpu_seconds']):,.0f}"
        rows.append([*names, *(scores(r[figure]) for figure in SCORE_TITLES), seconds])
    return rows


if __name__ == "__main__":
    run_script(main)
