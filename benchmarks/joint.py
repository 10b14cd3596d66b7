"""One model for both tasks against two models, loss weightings, and learning curves.

    python benchmarks/joint.py [--corpus FOLDER] [--limit N] [--epochs N] [--seeds N] [--jobs N]
        [--keep DIR] [--batch-size N] [--device cpu|cuda] [--backbone NAME] [--output FILE.json]
        [--shares S ...] [--turns N] [--weightings [NAME ...]] [--picture FILE.svg] [key=value ...]

Nothing is frozen. Task A alone, task B alone and both are trained with the same data, rates and epochs. The
differences are between the means of all seeds; their intervals are from the paired bootstrap over test rows.
The next runs train both tasks with other loss weights, measure the cosine between the tasks' gradients by
epoch, and train all three kinds with shares of the data: a share s gets 1/√s times the epochs, so that a
small share is seen more often. `--weightings` without a name leaves out weights and cosine. The last line is
JSON."""

import json
import sys
from pathlib import Path
from statistics import fmean, median

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.comparison import arguments_of
from benchmarks.names import JOINT, SCORE_TITLES, TWO, A, B
from benchmarks.pictures import check_picture, write_picture
from benchmarks.provenance import finish
from benchmarks.study import DEFAULTS, OPTIONS, TALLY_ARRAYS, TRAIN_ALL, Outcome, Run, Study
from benchmarks.study_pictures import learning_curves
from benchmarks.tables import markdown, scores
from multitask.common.errors import InputError
from multitask.common.shell import run_script
from multitask.evaluation.intervals import RowCounts, compare_means

KINDS = {JOINT: (), A: ("training.task=task_a",), B: ("training.task=task_b",)}
WEIGHTINGS = {
    "1 : 1": ("training.loss_weights={task_a: 1, task_b: 1}",),
    "3 : 1": ("training.loss_weights={task_a: 3, task_b: 1}",),
    "1 : 3": ("training.loss_weights={task_a: 1, task_b: 3}",),
    "learned (uncertainty)": ("training.loss_weighting=uncertainty",),
    "by the losses' fall (dwa)": ("training.loss_weighting=dwa",),
}
SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)
COSINE = "cosine"
FIGURES = tuple(SCORE_TITLES)


def main() -> None:
    shares = {
        "type": float,
        "nargs": "+",
        "default": SHARES,
        "metavar": "S",
        "help": "of the data, each ≤ 1",
    }
    chosen = {"nargs": "*", "choices": tuple(WEIGHTINGS), "default": tuple(WEIGHTINGS), "metavar": "NAME"}
    turns = {"type": int, "default": 5, "metavar": "N", "help": "rounds that measure prediction; 0: none (5)"}
    options = (
        *OPTIONS,
        ("--shares", shares),
        ("--turns", turns),
        ("--weightings", {**chosen, "help": f"of {', '.join(WEIGHTINGS)} (all)"}),
        ("--picture", {"metavar": "FILE.svg", "help": "draw the learning curves"}),
    )
    arguments, overrides = arguments_of("Compare joint and single training.", options, **DEFAULTS)
    check_picture(arguments.picture)
    if any(not 0 < share < 1 for share in arguments.shares[:-1]) or arguments.shares[-1] != 1:
        raise InputError("--shares must be above 0 and below 1, and the last must be 1")
    with Study(arguments, overrides) as study:
        parts = study.outcomes([part(kind, share) for share in reversed(arguments.shares) for kind in KINDS])
        weightings = study.outcomes(
            [Run(name, (*TRAIN_ALL, *WEIGHTINGS[name])) for name in arguments.weightings]
        )
        with_cosine = Run(COSINE, (*TRAIN_ALL, "training.gradient_cosine=true"))
        measured = study.outcomes([with_cosine] if arguments.weightings else [], seeds=study.seeds[:1])
        cosines = [row["gradient_cosine"] for (outcome,) in measured.values() for row in outcome.metrics]
        whole = {kind: parts[f"{kind}, 1"] for kind in KINDS}
        results = {
            "kinds": kinds(whole, prediction_costs(study, whole, arguments.turns)),
            "differences": differences(whole),
            "weightings": {name: test_scores(outcomes) for name, outcomes in weightings.items()},
            "gradient_cosine": cosines,
            "curves": {
                str(share): {"rows": parts[f"{JOINT}, {share:g}"][0].sentences}
                | {kind: test_scores(parts[f"{kind}, {share:g}"]) for kind in KINDS}
                for share in arguments.shares
            },
        }
        record = study.record(results)
    print(f"{record['corpus']}: {record['rows']:,} training sentences, {record['epochs']} epochs\n")
    for rows_of in (kinds_rows, differences_rows, weightings_rows, cosine_rows, curves_rows):
        print(markdown(rows_of(record)) + "\n")
    if arguments.picture:
        write_picture(arguments.picture, learning_curves, record)
    finish(record, arguments.output)


def part(kind: str, share: float) -> Run:
    """A run with a share of the data. Models trained with all data are kept, to measure prediction."""
    overrides = (*TRAIN_ALL, *KINDS[kind])
    return Run(f"{kind}, {share:g}", overrides, share=share, epochs=share**-0.5, keep=share == 1)


def prediction_costs(study: Study, whole: dict[str, list[Outcome]], turns: int) -> dict[str, dict]:
    """Speed and memory of predicting the test set with one model and with two.

    Medians over `turns` processes."""
    models = {kind: str(Path(outcomes[0].folder, "model")) for kind, outcomes in whole.items()}
    folders_of = {JOINT: [models[JOINT]], TWO: [models[A], models[B]]}
    measured: dict[str, list[dict]] = {name: [] for name in folders_of}
    for _ in range(turns):
        for name, folders in folders_of.items():
            folder = study.folder / "answering"
            folder.mkdir(exist_ok=True)
            spec = {"models": folders, "test": str(study.test), "threads": study.threads * study.jobs}
            (folder / "spec.json").write_text(json.dumps(spec))
            study.run_in_process("prediction_cost_run", folder)
            measured[name].append(json.loads((folder / "outcome.json").read_text()))
    return {
        name: {key: median(result[key] for result in rounds) for key in rounds[0]}
        for name, rounds in measured.items()
        if rounds
    }


def kinds(whole: dict[str, list[Outcome]], answers: dict[str, dict]) -> dict[str, dict]:
    """Scores and costs of each kind of training, and of two models together."""
    figures = {
        kind: test_scores(outcomes)
        | {
            name: [getattr(outcome, name) for outcome in outcomes]
            for name in ("total_seconds", "cpu_seconds", "peak_mib")
        }
        for kind, outcomes in whole.items()
    }
    a, b = figures[A], figures[B]
    figures[TWO] = {
        "accuracy": a["accuracy"],
        "entity_f1": b["entity_f1"],
        "exact_match": [float(both.whole[both.whole >= 0].mean()) for both in two_models(whole)],
        **{name: [sum(pair) for pair in zip(a[name], b[name])] for name in ("total_seconds", "cpu_seconds")},
        "peak_mib": [max(pair) for pair in zip(a["peak_mib"], b["peak_mib"])],  # one after the other
    }
    return {name: kind | {"answering": answers.get(name)} for name, kind in figures.items()}


def test_scores(outcomes: list[Outcome]) -> dict[str, list[float | None]]:
    """The test scores of each seed."""
    return {name: [outcome.test[name] for outcome in outcomes] for name in FIGURES}


def two_models(whole: dict[str, list[Outcome]]) -> list[RowCounts]:
    """The row counts of one model per task together, for each seed."""
    return [combine(row_counts(a), row_counts(b)) for a, b in zip(whole[A], whole[B])]


def combine(a: RowCounts, b: RowCounts) -> RowCounts:
    """The classes of the first model with the entities of the second."""
    whole = np.where((a.whole >= 0) & (b.whole >= 0), a.whole & b.whole, -1)
    return RowCounts(a.gold_class, a.predicted_class, b.correct, b.predicted, b.gold, whole)


def row_counts(outcome: Outcome) -> RowCounts:
    """What each test row adds to the metrics of a run."""
    with np.load(Path(outcome.folder, "tally.npz")) as arrays:
        return RowCounts(*(arrays[name] for name in TALLY_ARRAYS))


def differences(whole: dict[str, list[Outcome]]) -> dict[str, dict]:
    """The joint model's scores minus those of two models, with intervals."""
    comparisons = compare_means([row_counts(outcome) for outcome in whole[JOINT]], two_models(whole))
    return {name: (c := comparisons[name]) and {**c._asdict(), "verdict": c.verdict} for name in FIGURES}


def kinds_rows(record: dict) -> list[list[str]]:
    head = [
        "",
        "task A accuracy",
        "task B F1",
        "whole",
        "training s",
        "peak MiB",
        "answers/s",
        "MiB to answer",
    ]
    rows = [head]
    for name, r in record["results"]["kinds"].items():
        learned = {A: FIGURES[:1], B: FIGURES[1:2]}.get(name, FIGURES)
        answers = r["answering"]
        rows.append([name, *(scores(r[figure]) if figure in learned else "–" for figure in FIGURES)])
        rows[-1] += [f"{fmean(r['total_seconds']):,.0f}", f"{fmean(r['peak_mib']):,.0f}"]
        rows[-1] += [f"{answers[key]:,.0f}" if answers else "–" for key in ("rows_per_second", "peak_mib")]
    return rows


def differences_rows(record: dict) -> list[list[str]]:
    rows = [["one model less two", "one", "two", "difference", "95 % interval", "p", "in words"]]
    for name, d in record["results"]["differences"].items():
        if d:
            verdict = d["verdict"].replace("the first is", "one model is").replace("the second is", "two are")
            limits = f"{d['low']:+.3f} to {d['high']:+.3f}"
            rows.append(
                [SCORE_TITLES[name], f"{d['first']:.3f}", f"{d['second']:.3f}", f"{d['difference']:+.3f}"]
            )
            rows[-1] += [limits, f"{d['p']:.3f}", verdict]
    return rows


def weightings_rows(record: dict) -> list[list[str]]:
    rows = [["weights of the losses, A : B", "task A accuracy", "task B F1", "whole"]]
    for name, r in record["results"]["weightings"].items():
        rows.append([name, *(scores(r[figure]) for figure in FIGURES)])
    return rows


def cosine_rows(record: dict) -> list[list[str]]:
    cosines = record["results"]["gradient_cosine"]
    head = ["epoch", *map(str, range(1, len(cosines) + 1))]
    return [head, ["cosine of the tasks' gradients", *(f"{cosine:+.3f}" for cosine in cosines)]]


def curves_rows(record: dict) -> list[list[str]]:
    head = ["sentences", "task A: both", "task A alone", "task B: both", "task B alone"]
    rows = [head]
    for r in record["results"]["curves"].values():
        pairs = ((JOINT, "accuracy"), (A, "accuracy"), (JOINT, "entity_f1"), (B, "entity_f1"))
        rows.append([f"{r['rows']:,}", *(scores(r[kind][figure]) for kind, figure in pairs)])
    return rows


if __name__ == "__main__":
    run_script(main)
