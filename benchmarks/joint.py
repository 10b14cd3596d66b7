"""One model for both tasks or two, loss weightings, and how much data is needed.

    python benchmarks/joint.py [--corpus FOLDER] [--limit N] [--epochs N] [--seeds N] [--jobs N]
        [--keep DIR] [--batch-size N] [--device cpu|cuda] [--backbone NAME] [--output FILE.json]
        [--shares S ...] [--turns N] [--picture FILE.svg] [key=value ...]

Nothing is frozen. The same data, rates and epochs train task A alone, task B alone and both; the differences
have intervals by the paired bootstrap over test rows, of the means of all seeds. Then both with other weights
of their losses; the cosine between their gradients, by epoch; and all three with parts of the data, where a
share s has 1/√s times the epochs, so that few sentences are seen more often. The last line is JSON."""

import json
import sys
from pathlib import Path
from statistics import fmean, median

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.comparison import arguments_of
from benchmarks.names import JOINT, TWO, A, B
from benchmarks.provenance import finish
from benchmarks.study import DEFAULTS, OPTIONS, TALLY_ARRAYS, TRAIN_ALL, Outcome, Run, Study, check_picture
from benchmarks.tables import markdown, scores
from multitask.common.errors import InputError
from multitask.common.shell import run_script
from multitask.evaluation.intervals import RowCounts, compare_means

KINDS = {JOINT: (), A: ("training.task=task_a",), B: ("training.task=task_b",)}
WEIGHTINGS = {
    "1 : 1": (),
    "3 : 1": ("training.loss_weights={task_a: 3, task_b: 1}",),
    "1 : 3": ("training.loss_weights={task_a: 1, task_b: 3}",),
    "learned (uncertainty)": ("training.loss_weighting=uncertainty",),
    "by the losses' fall (dwa)": ("training.loss_weighting=dwa",),
}
SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)
COSINE = "cosine"
TITLES = {"accuracy": "task A accuracy", "entity_f1": "task B F1", "exact_match": "whole sentences"}
FIGURES = tuple(TITLES)


def main() -> None:
    shares = {"type": float, "nargs": "+", "default": SHARES, "metavar": "S", "help": "of the data, each ≤ 1"}
    turns = {"type": int, "default": 5, "metavar": "N", "help": "to measure answering in; 0: not at all (5)"}
    options = (
        *OPTIONS,
        ("--shares", shares),
        ("--turns", turns),
        ("--picture", {"metavar": "FILE.svg", "help": "draw the learning curves"}),
    )
    arguments, overrides = arguments_of("Compare joint and single training.", options, **DEFAULTS)
    check_picture(arguments.picture)
    if any(not 0 < share < 1 for share in arguments.shares[:-1]) or arguments.shares[-1] != 1:
        raise InputError("--shares are above 0, and the last of them is 1")
    with Study(arguments, overrides) as study:
        parts = study.outcomes([part(kind, share) for share in reversed(arguments.shares) for kind in KINDS])
        weightings = study.outcomes([Run(name, (*TRAIN_ALL, *more)) for name, more in WEIGHTINGS.items()])
        slow = Run(COSINE, (*TRAIN_ALL, "training.gradient_cosine=true"))
        cosines = study.outcomes([slow], seeds=study.seeds[:1])[COSINE][0].metrics
        whole = {kind: parts[f"{kind}, 1"] for kind in KINDS}
        results = {
            "kinds": kinds(whole, answering(study, whole, arguments.turns)),
            "differences": differences(whole),
            "weightings": {name: test_scores(found) for name, found in weightings.items()},
            "gradient_cosine": [row["gradient_cosine"] for row in cosines],
            "curves": {
                str(share): {"rows": parts[f"{JOINT}, {share:g}"][0].sentences}
                | {kind: test_scores(parts[f"{kind}, {share:g}"]) for kind in KINDS}
                for share in arguments.shares
            },
        }
        record = study.record(results)
    print(f"{record['corpus']}: {record['rows']:,} training sentences, {record['epochs']} epochs\n")
    for each in (kinds_rows, differences_rows, weightings_rows, cosine_rows, curves_rows):
        print(markdown(each(record)) + "\n")
    if arguments.picture:
        from benchmarks.study_pictures import learning_curves, write

        write(arguments.picture, learning_curves, record)
    finish(record, arguments.output)


def part(kind: str, share: float) -> Run:
    """Training with a share of the data. Models of all of it are kept, to see what answers cost."""
    overrides = (*TRAIN_ALL, *KINDS[kind])
    return Run(f"{kind}, {share:g}", overrides, share=share, epochs=share**-0.5, keep=share == 1)


def answering(study: Study, whole: dict[str, list[Outcome]], turns: int) -> dict[str, dict]:
    """What it takes to answer the test set with one model and with two, by turns, each in its process."""
    models = {kind: str(Path(found[0].folder, "model")) for kind, found in whole.items()}
    ways = {JOINT: [models[JOINT]], TWO: [models[A], models[B]]}
    taken: dict[str, list[dict]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, folders in ways.items():
            folder = study.folder / "answering"
            folder.mkdir(exist_ok=True)
            spec = {"models": folders, "test": str(study.test), "threads": study.threads * study.jobs}
            (folder / "spec.json").write_text(json.dumps(spec))
            study.in_a_process("answering_run", folder)
            taken[name].append(json.loads((folder / "outcome.json").read_text()))
    return {
        name: {key: median(each[key] for each in found) for key in found[0]}
        for name, found in taken.items()
        if found
    }


def kinds(whole: dict[str, list[Outcome]], answers: dict[str, dict]) -> dict[str, dict]:
    """Scores and costs of each kind of training, and of two models together."""
    found = {
        kind: test_scores(outcomes)
        | {
            name: [getattr(each, name) for each in outcomes]
            for name in ("total_seconds", "cpu_seconds", "peak_mib")
        }
        for kind, outcomes in whole.items()
    }
    a, b = found[A], found[B]
    found[TWO] = {
        "accuracy": a["accuracy"],
        "entity_f1": b["entity_f1"],
        "exact_match": [float(both.whole[both.whole >= 0].mean()) for both in two_models(whole)],
        **{name: [sum(pair) for pair in zip(a[name], b[name])] for name in ("total_seconds", "cpu_seconds")},
        "peak_mib": [max(pair) for pair in zip(a["peak_mib"], b["peak_mib"])],  # one after the other
    }
    return {name: figures | {"answering": answers.get(name)} for name, figures in found.items()}


def test_scores(found: list[Outcome]) -> dict[str, list[float | None]]:
    """Of each seed."""
    return {name: [each.test[name] for each in found] for name in FIGURES}


def two_models(whole: dict[str, list[Outcome]]) -> list[RowCounts]:
    """What a model for each task together make of each test row, for each seed."""
    return [together(tally_of(a), tally_of(b)) for a, b in zip(whole[A], whole[B])]


def together(a: RowCounts, b: RowCounts) -> RowCounts:
    """The classes of one tally with the entities of the other."""
    whole = np.where((a.whole >= 0) & (b.whole >= 0), a.whole & b.whole, -1)
    return RowCounts(a.gold_class, a.predicted_class, b.correct, b.predicted, b.gold, whole)


def tally_of(outcome: Outcome) -> RowCounts:
    with np.load(Path(outcome.folder, "tally.npz")) as arrays:
        return RowCounts(*(arrays[name] for name in TALLY_ARRAYS))


def differences(whole: dict[str, list[Outcome]]) -> dict[str, dict]:
    """The joint model's scores less those of two models."""
    found = compare_means([tally_of(each) for each in whole[JOINT]], two_models(whole))
    return {
        name: found[name] and {**found[name]._asdict(), "verdict": found[name].verdict} for name in FIGURES
    }


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
            rows.append([TITLES[name], f"{d['first']:.3f}", f"{d['second']:.3f}", f"{d['difference']:+.3f}"])
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
