"""How many epochs do one model for both tasks and two models need, and which of them is better then?

    python benchmarks/epochs.py [--corpus FOLDER] [--limit N] [--budgets E E ...] [--longest E] [--seeds N]
        [--weightings [NAME ...]] [--weighted-budgets E ...] [--jobs N] [--keep DIR] [--batch-size N]
        [--device cpu|cuda] [--backbone NAME] [--output FILE.json] [key=value ...]

Nothing is frozen. For each budget of epochs, and each seed, task A alone, task B alone and both are trained
from the start: the rates rise and fall within the budget, so a score of a longer run halfway is another
thing. The last epoch is scored. `--longest` epochs (0: none) are trained until dev has not risen for three
epochs, and the best epoch on dev is scored. One model is compared with two at equal epochs, at equal compute
(one model has twice the epochs, as a joint epoch costs about as much as one of a single task), and at
convergence; the intervals are from the paired bootstrap over test rows. Other weights of the losses are
trained with `--weighted-budgets`, and until dev no longer rises. The last line is JSON."""

import sys
from argparse import Namespace
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.comparison import arguments_of
from benchmarks.joint import FIGURES, KINDS, WEIGHTINGS, differences, test_scores
from benchmarks.names import JOINT, SCORE_TITLES, A, B
from benchmarks.provenance import ROOT, finish
from benchmarks.study import DEFAULTS, OPTIONS, TRAIN_ALL, Outcome, Run, Study
from benchmarks.tables import markdown, scores
from multitask.common.errors import InputError
from multitask.common.shell import run_script
from multitask.config.loading import load_settings
from multitask.config.yaml_reader import format_scalar

PATIENCE = 3  # epochs
BUDGETS, WEIGHTED_BUDGETS, LONGEST = (1, 3, 6, 12, 24), (3, 12), 30
OTHERS = tuple(name for name in WEIGHTINGS if name != "3 : 1")  # 3 : 1 lost everywhere in joint.py
CONVERGED, UNTIL_DEV = "converged", "until dev fell"
EQUAL_EPOCHS, EQUAL_COMPUTE = "equal epochs", "equal compute"


def main() -> None:
    number = {"type": int, "metavar": "E"}
    weightings = {"nargs": "*", "choices": tuple(WEIGHTINGS), "default": OTHERS, "metavar": "NAME"}
    longest = f"epochs, if dev goes on rising; 0: no such run ({LONGEST})"
    options = (
        *OPTIONS[1:],
        ("--budgets", {**number, "nargs": "+", "default": BUDGETS, "help": "epochs of a run, rising"}),
        ("--longest", {**number, "default": LONGEST, "help": longest}),
        ("--weightings", {**weightings, "help": f"of {', '.join(WEIGHTINGS)}"}),
        ("--weighted-budgets", {**number, "nargs": "*", "default": WEIGHTED_BUDGETS}),
    )
    arguments, overrides = arguments_of(
        "Compare joint and single training by epochs.", options, epochs=1, **DEFAULTS
    )
    check_budgets(arguments)
    budgets = tuple(arguments.budgets)
    with Study(arguments, overrides) as study:
        changes = KINDS | {name: WEIGHTINGS[name] for name in arguments.weightings}
        converged = (CONVERGED,) if arguments.longest else ()
        ends = {kind: [*budgets, *converged] for kind in KINDS}
        ends |= {name: [*arguments.weighted_budgets, *converged] for name in arguments.weightings}
        dev = f"data.dev={format_scalar(str(study.corpus / 'dev.jsonl'))}"
        until_dev = (arguments.longest, (dev, f"training.early_stopping={PATIENCE}"))
        runs = []
        for name, at in ends.items():
            for end in at:
                epochs, words = until_dev if end == CONVERGED else (end, ())
                runs.append(Run(f"{name}, {end}", (*TRAIN_ALL, *changes[name], *words), epochs=epochs))
        done = study.outcomes(sorted(runs, key=lambda run: -run.epochs))  # the longest first
        found = {name: {str(end): done[f"{name}, {end}"] for end in at} for name, at in ends.items()}
        results = {
            "curves": {name: {end: summary(o) for end, o in by.items()} for name, by in found.items()},
            "differences": compared(found),
        }
        weights = load_settings(ROOT / "config.yml", overrides).training.loss_weights
        record = study.record(results) | {
            "epochs": max(arguments.longest, *budgets),
            "loss_weights": f"{weights.task_a:g} : {weights.task_b:g}",
        }
        record["steps_per_epoch"] = steps = -(-record["rows"] // arguments.batch_size)
    print(f"{record['corpus']}: {record['rows']:,} training sentences, {steps} steps an epoch\n")
    for rows_of in (curves_rows, differences_rows, weightings_rows):
        print(markdown(rows_of(record)) + "\n")
    finish(record, arguments.output)


def check_budgets(arguments: Namespace) -> None:
    """Raise InputError for numbers of epochs that do not go together."""
    budgets = arguments.budgets
    if sorted({*budgets}) != [*budgets] or min(budgets) < 1:
        raise InputError("--budgets must rise, from 1 or more")
    if arguments.longest < 0:
        raise InputError(f"--longest is {arguments.longest}; it must be 0 or more")
    if not {*arguments.weighted_budgets} <= {*budgets}:
        raise InputError("--weighted-budgets must be among --budgets")


def summary(outcomes: list[Outcome]) -> dict[str, list]:
    """The test scores, and the epochs that were trained, of each seed."""
    return test_scores(outcomes) | {"trained_epochs": [len(outcome.metrics) for outcome in outcomes]}


def compared(found: dict[str, dict[str, list[Outcome]]]) -> dict[str, dict[str, dict]]:
    """One model less two: kind of comparison → the end of the two models' training → metric → difference."""
    joint = found[JOINT]
    partners = {
        EQUAL_EPOCHS: {end: end for end in joint if end != CONVERGED},
        EQUAL_COMPUTE: {
            end: str(2 * int(end)) for end in joint if end != CONVERGED and str(2 * int(end)) in joint
        },
        CONVERGED: {CONVERGED: CONVERGED} if CONVERGED in joint else {},
    }
    return {
        name: {
            end: differences({JOINT: joint[one], A: found[A][end], B: found[B][end]})
            for end, one in ends.items()
        }
        for name, ends in partners.items()
    }


def curves_rows(record: dict) -> list[list[str]]:
    """Scores by epochs, of one model and of two."""
    pairs = ((JOINT, "accuracy"), (A, "accuracy"), (JOINT, "entity_f1"), (B, "entity_f1"))
    rows = [["epochs", "task A: both", "task A alone", "task B: both", "task B alone"]]
    curves = record["results"]["curves"]
    for end in curves[JOINT]:
        trained = [curves[kind][end]["trained_epochs"] for kind in (JOINT, A, B)]
        until_dev = f"{UNTIL_DEV} ({' / '.join(f'{fmean(epochs):.0f}' for epochs in trained)})"
        name = until_dev if end == CONVERGED else end
        rows.append([name, *(scores(curves[kind][end][figure]) for kind, figure in pairs)])
    return rows


def differences_rows(record: dict) -> list[list[str]]:
    """One model less two, with intervals, for each kind of comparison."""
    rows = [["compared at", "epochs: one", "two", *SCORE_TITLES.values()]]
    for kind, by_end in record["results"]["differences"].items():
        for end, metrics in by_end.items():
            one = str(2 * int(end)) if kind == EQUAL_COMPUTE else end
            cells = ["–", "–"] if end == CONVERGED else [one, end]
            rows.append([kind, *cells, *(interval(metrics[figure]) for figure in FIGURES)])
    return rows


def interval(difference: dict | None) -> str:
    """A difference with its interval; in bold where p is below 5 %."""
    if difference is None:
        return "–"
    text = f"{difference['difference']:+.3f} ({difference['low']:+.3f} to {difference['high']:+.3f})"
    return f"**{text}**" if difference["p"] < 0.05 else text


def weightings_rows(record: dict) -> list[list[str]]:
    """Scores of both tasks by weights of the losses."""
    curves = record["results"]["curves"]
    weighted = {name: by_end for name, by_end in curves.items() if name not in (A, B)}
    ends = [end for end in weighted[JOINT] if all(end in by_end for by_end in weighted.values())]
    rows = [["weights of the losses, A : B"]]
    for end in ends:
        rows[0] += [f"{UNTIL_DEV if end == CONVERGED else f'{end} epochs'}: task A accuracy", "task B F1"]
    for name, by_end in weighted.items():
        rows.append([record["loss_weights"] if name == JOINT else name])
        rows[-1] += [scores(by_end[end][figure]) for end in ends for figure in FIGURES[:2]]
    return rows


if __name__ == "__main__":
    run_script(main)
