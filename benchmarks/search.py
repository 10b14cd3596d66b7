"""What a search for settings finds in a given time, and whether the gain on dev is one on test.

    python benchmarks/search.py [--corpus FOLDER] [--limit N] [--epochs N] [--minutes M] [--seeds N]
        [--jobs N] [--keep DIR] [--batch-size N] [--device cpu|cuda] [--backbone NAME]
        [--output FILE.json] [key=value ...]

Everything is trained. `python task_4.py --search` runs on one draw of the training rows (seed 0), with the
threads of one of --jobs runs, until its trials have taken M minutes; with --keep, an interrupted search goes
on. Three settings are then trained with the seeds 1, 2, …, each of which draws other rows: those that the
search began with, the same with the best trial's number of epochs, and the best trial's. dev chooses the
epoch, and test is scored once. The last line is JSON."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.comparison import arguments_of
from benchmarks.names import SCORE_TITLES
from benchmarks.provenance import ROOT, finish
from benchmarks.study import DEFAULTS, OPTIONS, TRAIN_ALL, Run, Study
from benchmarks.tables import figure, markdown, scores
from multitask.common.atomic_files import atomic_file
from multitask.common.errors import InputError
from multitask.common.shell import run_script
from multitask.config.help_text import render_config
from multitask.config.loading import load_settings
from multitask.config.yaml_reader import format_scalar
from multitask.search.trials import PRUNED, Trial, best_trial, read_trials, within

SEED = 0  # of the draw that is searched; the others are tested
SHARES = (1 / 8, 1 / 4, 1 / 2, 1)  # of the time, at which the best trial so far is shown
EPOCHS = "training.num_epochs"
START, LONGER, FOUND = "as they are", "with the best trial's epochs", "of the best trial"


def main() -> None:
    time_limit = {"type": float, "default": 60, "metavar": "M", "help": "of the search (60)"}
    options = (*OPTIONS, ("--minutes", time_limit))
    arguments, overrides = arguments_of("Search for settings.", options, **DEFAULTS)
    if not arguments.minutes > 0:
        raise InputError(f"--minutes is {arguments.minutes:g}; it must be more than 0")
    with Study(arguments, overrides) as study:
        dev = f"data.dev={format_scalar(str(study.corpus / 'dev.jsonl'))}"
        trials = searched(study, [dev, *TRAIN_ALL], 60 * arguments.minutes)
        runs = [
            Run(name, (*TRAIN_ALL, dev, *(f"{key}={format_scalar(value)}" for key, value in values.items())))
            for name, values in compared(trials).items()
        ]
        seeds = [seed + 1 for seed in study.seeds]
        tests = {
            name: {key: [outcome.test[key] for outcome in outcomes] for key in SCORE_TITLES}
            for name, outcomes in study.outcomes(runs, seeds).items()
        }
        results = {"trials": recorded(trials), "test": tests}
        record = study.record(results) | {"seeds": [SEED, *seeds], "minutes": arguments.minutes}
    print(f"{record['corpus']}: {record['rows']:,} training sentences, {arguments.minutes:g} minutes\n")
    for table in (found_rows(record), settings_rows(record), test_rows(record)):
        print(markdown(table) + "\n")
    finish(record, arguments.output)


def searched(study: Study, words: Sequence[str], seconds: float) -> list[Trial]:
    """The trials that end within this time, and the first one in any case. Searches as long as that takes.

    Raises InputError if the search fails."""
    folder = study.folder / "search"
    folder.mkdir(parents=True, exist_ok=True)
    train, trials = folder / "train.jsonl", folder / "trials"
    with atomic_file(train) as file:
        file.write(b"".join(study.rows(SEED, 1)))
    words = [*study.common, f"{EPOCHS}={study.epochs}", f"training.seed={SEED}", *words]
    words += [f"model.backbone={format_scalar(study.backbone)}", f"data.train={format_scalar(str(train))}"]
    with atomic_file(folder / "config.yml") as file:  # what is set on the command line is not searched
        file.write(render_config(load_settings(ROOT / "config.yml", words)).encode())
    spec = {"threads": study.threads, "seconds": seconds, "trials": str(trials)}
    with atomic_file(folder / "spec.json") as file:
        file.write(json.dumps(spec).encode())
    study.run_in_process("search_run", folder)
    found = read_trials(trials)
    return within(found, seconds) or found[:1]


def compared(trials: Sequence[Trial]) -> dict[str, dict[str, Any]]:
    """What is tested → the values of the searched keys, of settings that differ."""
    best = best_trial(trials)
    assert best is not None  # a search whose first trial fails raises InputError
    first, found = trials[0].settings, trials[best].settings
    longer = first | {key: value for key, value in found.items() if key == EPOCHS}
    named = {FOUND: found, LONGER: longer, START: first}
    distinct = {tuple(values.values()): name for name, values in named.items()}  # the last name of equal ones
    return {name: values for name, values in reversed(named.items()) if name in distinct.values()}


def recorded(trials: Sequence[Trial]) -> list[dict]:
    """Trials as the record has them."""
    kept = "settings", "state", "score", "seconds"
    return [{name: value for name, value in asdict(trial).items() if name in kept} for trial in trials]


def trials_of(record: dict) -> list[Trial]:
    """The trials of a record."""
    return [Trial(**facts, dev_by_epoch={}) for facts in record["results"]["trials"]]


def found_rows(record: dict) -> list[list[str]]:
    """What was found after parts of the time."""
    rows, trials = [["minutes", "trials", "given up", "best dev score"]], trials_of(record)
    for minutes in (share * record["minutes"] for share in SHARES):
        done = within(trials, 60 * minutes)
        best, given_up = best_trial(done), sum(trial.state == PRUNED for trial in done)
        score = None if best is None else done[best].score
        rows.append([f"{minutes:g}", str(len(done)), str(given_up), figure(score, ".4f")])
    return rows


def settings_rows(record: dict) -> list[list[str]]:
    """The searched keys of the compared settings."""
    tested = compared(trials_of(record))
    rows = [["settings", *tested[START]]]
    return rows + [[name, *map(format_scalar, values.values())] for name, values in tested.items()]


def test_rows(record: dict) -> list[list[str]]:
    """Test scores of the compared settings."""
    rows = [["settings", *SCORE_TITLES.values()]]
    for name, test in record["results"]["test"].items():
        rows.append([name, *(scores(test[key]) for key in SCORE_TITLES)])
    return rows


if __name__ == "__main__":
    run_script(main)
