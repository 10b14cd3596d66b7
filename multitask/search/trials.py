"""The trials of a search, as lines of a file."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from multitask.common.atomic_files import atomic_file
from multitask.common.errors import InputError

FILE = "trials.jsonl"
COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"


@dataclass(frozen=True)
class Trial:
    """A run with some settings, and what came of it."""

    settings: dict[str, Any]  # by dotted key: those that the search chose
    state: str  # complete; pruned: given up before its end; failed: it could not be trained
    score: float | None  # the best dev score; None if it failed
    dev_by_epoch: dict[int, float]  # 1 for the first epoch
    seconds: float
    reason: str | None = None  # why it failed


def read_trials(folder: Path) -> list[Trial]:
    """The finished trials of a search. Raises InputError if the file is damaged."""
    file = folder / FILE
    if not file.exists():
        return []
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return [Trial(**{**row, "dev_by_epoch": _by_epoch(row)}) for row in rows]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise InputError(f"{file}: is damaged, or of another version; search in another folder") from None


def _by_epoch(row: dict) -> dict[int, float]:
    """JSON has only strings as keys."""
    return {int(epoch): score for epoch, score in row["dev_by_epoch"].items()}


def write_trials(folder: Path, trials: Sequence[Trial]) -> None:
    """Write all trials, all or nothing."""
    with atomic_file(folder / FILE) as file:
        file.write("".join(json.dumps(asdict(trial)) + "\n" for trial in trials).encode())


def best_trial(trials: Sequence[Trial]) -> int | None:
    """The index of the complete trial with the highest score, the first of equal ones; None without one."""
    complete = [i for i, trial in enumerate(trials) if trial.state == COMPLETE and trial.score is not None]
    return max(complete, key=lambda i: (trials[i].score, -i), default=None)


def within(trials: Sequence[Trial], seconds: float) -> list[Trial]:
    """The trials that ended within this time, where nothing was between them."""
    return [trial for trial, end in zip(trials, accumulate(t.seconds for t in trials)) if end <= seconds]
