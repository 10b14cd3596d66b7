"""Runs that are killed, stopped or broken, and go on: they end as if nothing had happened, to the bit."""

import hashlib
import json
import random
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from killing import Runs

SETTINGS = [
    "model.freeze_backbone=false",
    "training.learning_rate=1e-3",
    "training.num_epochs=3",
    "training.checkpoint_every=1",
    "data.test=null",
]
KINDS = {
    "all": [],
    "heads": ["model.freeze_backbone=true"],
    "layers": ["model.freeze_layers=2", "training.layer_decay=0.5"],
    "lora": ["model.lora.rank=2", "model.lora.dropout=0.1"],
    "uncertainty": ["training.loss_weighting=uncertainty", "training.gradient_cosine=true"],
    "dwa": ["training.loss_weighting=dwa"],
    "accumulated": ["training.batch_size=2", "training.gradient_accumulation=2"],
    "without dev": ["data.dev=null"],
}


@pytest.fixture(scope="module")
def runs():
    runs = Runs()
    yield runs
    runs.close()


@pytest.fixture
def arguments(settings_for, tmp_path):
    (tmp_path / "cache").mkdir()
    return [*settings_for, *SETTINGS]


def fingerprint(folder: Path) -> dict:
    """What a run ends with, apart from how long things took: its files' hashes, metrics and place."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("seconds", 0), row.pop("sentences_per_second", 0)
    last = max((folder / "checkpoints").iterdir())
    facts = json.loads((last / "state.json").read_text())
    facts["progress"].pop("metrics")
    files = [*(folder / "model").iterdir(), *last.glob("*.safetensors")]
    hashes = {f.relative_to(folder).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    return {"metrics": rows, "last": last.name, "facts": facts, **hashes}


def finished(runs, folder, arguments):
    """The fingerprint of a run that nothing disturbs, and the changes of the disk that it made."""
    outcome = runs(folder, *arguments)
    assert outcome.status == 0, outcome.err
    return fingerprint(folder / "run"), outcome.changes


def newest_good(folder: Path) -> int:
    """The step of the newest checkpoint that has its name, which is the one to go on from; 0 for none."""
    return max((int(path.name.split("-")[1]) for path in folder.glob("run/checkpoints/step-*")), default=0)


def resumed(runs, folder, arguments):
    """Go on in a folder in which a run was killed; how it ends."""
    if not (folder / "run/config.yml").exists():  # nothing of the run is there yet
        for left in (folder / "run").glob("*"):
            left.unlink()
        outcome = runs(folder, *arguments)
    else:
        step = newest_good(folder)
        outcome = runs(folder, "--resume", "run")
        if "is finished" not in outcome.out:
            said = f"after step {step}," if step else "there is no checkpoint yet"
            assert said in outcome.out + outcome.err
    assert outcome.status == 0, outcome.err
    return fingerprint(folder / "run")


def killed_everywhere(runs, tmp_path, arguments, points):
    whole, changes = finished(runs, tmp_path / "whole", arguments)
    for point in points(len(changes)):
        folder = tmp_path / f"killed-{point}"
        outcome = runs(folder, *arguments, kill_at=point)
        assert outcome.status == -signal.SIGKILL, outcome.err
        assert resumed(runs, folder, arguments) == whole, f"killed at {point}: {changes[point - 1]}"


def test_a_run_that_is_killed_while_it_writes_ends_as_if_it_had_not_been(runs, tmp_path, arguments):
    def some(last):
        return sorted(random.Random(0).sample(range(1, last + 1), 10))

    killed_everywhere(runs, tmp_path, arguments, some)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_killed_anywhere_ends_as_if_it_had_not_been(runs, tmp_path, arguments, kind):
    killed_everywhere(runs, tmp_path, [*arguments, *KINDS[kind]], lambda last: range(1, last + 1))
