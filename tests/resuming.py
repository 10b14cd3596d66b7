"""Runs of task_4.py that are stopped and resumed, and their results."""

import hashlib
import json
import shutil
import signal
import time
from pathlib import Path

import pytest
from killing import ROOT, Runs

from multitask.common.atomic_files import lock_file
from multitask.common.checksums import write_with_checksums

SETTINGS = [  # of a run of six steps, with a checkpoint after each
    f"--config={ROOT / 'config.yml'}",
    "model.backbone=encoder",
    "model.num_classes_task_a=2",
    "model.num_labels_task_b=3",
    "model.max_length=32",
    "model.stride=8",
    "model.freeze_backbone=false",
    "data.train=rows.jsonl",
    "data.dev=rows.jsonl",
    "data.test=null",
    "training.batch_size=4",
    "training.learning_rate=1e-3",
    "training.num_epochs=3",
    "training.checkpoint_every=1",
    "device=cpu",
    "output_dir=run",
]

ROWS = [
    {"tokens": ["anna", "won", "in", "paris"], "tags": ["B-PER", "O", "O", "B-LOC"], "label": "sports"},
    {"tokens": ["the", "vote"], "tags": ["O", "O"], "label": "politics"},
    {
        "tokens": ["the", "match", "in", "the", "paris"],
        "tags": ["O", "O", "O", "B-LOC", "I-LOC"],
        "label": "sports",
    },
    {"tokens": ["anna", "and", "anna", "vote"], "tags": ["B-PER", "O", "B-PER", "O"], "label": "politics"},
    {
        "text": "Annason won the vote.",
        "entities": [{"start": 0, "end": 7, "label": "PER"}],
        "label": "politics",
    },
    {"tokens": ["winning", "the", "match"], "label": "sports"},
    {"tokens": ["paris", "and", "anna"], "tags": ["B-LOC", "O", "B-PER"]},
    {"tokens": ["the", "chip", "and", "the", "match"], "tags": ["O"] * 5, "label": "sports"},
]


def metrics(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("seconds", 0), row.pop("sentences_per_second", 0)
    return rows


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def fingerprint(folder: Path) -> dict:
    """The result of a run, without durations: hashes of its files, metrics and state."""
    last = max((folder / "checkpoints").iterdir())
    facts = json.loads((last / "state.json").read_text())
    facts["progress"].pop("metrics")
    files = [*(folder / "model").rglob("*"), *last.glob("*.safetensors")]
    hashes = {
        f.relative_to(folder).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in files
        if f.is_file()
    }
    return {"metrics": metrics(folder), "last": last.name, "facts": facts, **hashes}


def finished(runs, folder, arguments):
    """An undisturbed run → its fingerprint, its changes of the disk, and its seconds."""
    started = time.monotonic()
    outcome = runs(folder, *arguments)
    assert outcome.status == 0, outcome.err
    return fingerprint(folder / "run"), outcome.changes, time.monotonic() - started


def newest_good(folder: Path) -> int:
    """The step of the newest complete checkpoint, from which a run resumes; 0 without one."""
    return max((int(path.name.split("-")[1]) for path in folder.glob("run/checkpoints/step-*")), default=0)


def resumed(runs, folder, arguments):
    """Resume a killed run → its fingerprint."""
    if not (folder / "run/config.yml").exists():  # the kill came before the run wrote anything
        outcome = runs(folder, *arguments)
    else:
        step = newest_good(folder)
        outcome = runs(folder, "--resume", "run")
        if "is finished" not in outcome.out:
            message = f"after step {step}," if step else "there is no checkpoint yet"
            assert message in outcome.out + outcome.err
    assert outcome.status == 0, outcome.err
    # a lock stays after a kill, and only a process that trains removes it
    left = {*folder.glob("run/.*"), *folder.glob("run/checkpoints/.*")}
    assert left <= ({folder / "run/.lock"} if "is finished" in outcome.out else set())
    return fingerprint(folder / "run")


def killed_everywhere(runs, fresh, arguments, points):
    """Kill runs at `points(number of changes of the disk)`; each ends bit-identical with one that was not."""
    whole, changes, _ = finished(runs, fresh("whole"), arguments)
    for point in points(len(changes)):
        folder = fresh(f"killed-{point}-")
        outcome = runs(folder, *arguments, kill_at=point)
        assert outcome.status == -signal.SIGKILL, outcome.err
        assert resumed(runs, folder, arguments) == whole, f"killed at {point}: {changes[point - 1]}"
        shutil.rmtree(folder)


def seal(folder: Path) -> None:
    """Write the checksums of a folder's present files."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS"]
    write_with_checksums(
        folder, [(path.relative_to(folder).as_posix(), [path.read_bytes()]) for path in files]
    )


@pytest.fixture(scope="session")
def runs():
    runs = Runs()
    yield runs
    runs.close()


@pytest.fixture(scope="session")
def fresh(tiny, tmp_path_factory):
    """A function that makes a folder with an encoder and rows, under the same names every time."""

    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        shutil.copytree(tiny, folder / "encoder")
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        return folder

    return make


@pytest.fixture(scope="session")
def whole(runs, fresh):
    """The result of an undisturbed run: see `finished`."""
    return finished(runs, fresh("whole"), SETTINGS)


@pytest.fixture(scope="session")
def killed(runs, fresh):
    """The folder of a run that was killed in its fifth step of six."""
    folder = fresh("killed")
    assert runs(folder, *SETTINGS, at_step={5: [signal.SIGKILL]}).status == -signal.SIGKILL
    assert newest_good(folder) == 4
    for half_gone in folder.glob("run/checkpoints/.*"):  # a thread was killed while it removed them
        shutil.rmtree(half_gone)
    lock_file(folder / "run").unlink()  # which stays after a kill
    return folder


@pytest.fixture
def stopped(killed, tmp_path):
    """A copy of the killed run's folder."""
    return shutil.copytree(killed, tmp_path / "stopped")
