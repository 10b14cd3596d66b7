"""Runs that are killed, stopped or broken, and go on: they end as if nothing had happened, to the bit."""

import fcntl
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, ROWS

from multitask.sealed import Damaged, read_sealed, write_sealed

sys.path.insert(0, str(Path(__file__).parent))
from killing import Runs

SETTINGS = [
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


@pytest.fixture(scope="module")
def fresh(tiny, tmp_path_factory):
    """Make a folder with an encoder and data, in which runs know them by the same names as in any other."""

    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        shutil.copytree(tiny, folder / "encoder")
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        return folder

    return make


@pytest.fixture(scope="module")
def whole(runs, fresh):
    """Of a run that nothing disturbs: see `finished`."""
    return finished(runs, fresh("whole"), SETTINGS)


@pytest.fixture(scope="module")
def killed(runs, fresh):
    """The folder of a run that was killed in its fifth step of six."""
    folder = fresh("killed")
    assert runs(folder, *SETTINGS, at_step={5: [signal.SIGKILL]}).status == -signal.SIGKILL
    assert newest_good(folder) == 4
    return folder


@pytest.fixture
def stopped(killed, tmp_path):
    """A copy of it."""
    return shutil.copytree(killed, tmp_path / "stopped")


def metrics(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("seconds", 0), row.pop("sentences_per_second", 0)
    return rows


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def fingerprint(folder: Path) -> dict:
    """What a run ends with, apart from how long things took: its files' hashes, metrics and place."""
    last = max((folder / "checkpoints").iterdir())
    facts = json.loads((last / "state.json").read_text())
    facts["progress"].pop("metrics")
    files = [*(folder / "model").iterdir(), *last.glob("*.safetensors")]
    hashes = {f.relative_to(folder).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    return {"metrics": metrics(folder), "last": last.name, "facts": facts, **hashes}


def finished(runs, folder, arguments):
    """Of a run that nothing disturbs: its fingerprint, its changes of the disk, and how long it took."""
    started = time.monotonic()
    outcome = runs(folder, *arguments)
    assert outcome.status == 0, outcome.err
    return fingerprint(folder / "run"), outcome.changes, time.monotonic() - started


def newest_good(folder: Path) -> int:
    """The step of the newest checkpoint that has its name, which is the one to go on from; 0 for none."""
    return max((int(path.name.split("-")[1]) for path in folder.glob("run/checkpoints/step-*")), default=0)


def resumed(runs, folder, arguments):
    """Go on in a folder in which a run was killed; how it ends."""
    if not (folder / "run/config.yml").exists():  # nothing of the run is there yet
        outcome = runs(folder, *arguments)
    else:
        step = newest_good(folder)
        outcome = runs(folder, "--resume", "run")
        if "is finished" not in outcome.out:
            said = f"after step {step}," if step else "there is no checkpoint yet"
            assert said in outcome.out + outcome.err
    assert outcome.status == 0, outcome.err
    assert not [*folder.glob("run/.*"), *folder.glob("run/checkpoints/.*")]
    return fingerprint(folder / "run")


def seal(folder: Path) -> None:
    """Let a folder's sums be those of what is in it now."""
    files = [(path.name, [path.read_bytes()]) for path in folder.iterdir() if path.name != "SHA256SUMS"]
    write_sealed(folder, files)


def killed_everywhere(runs, fresh, arguments, points):
    whole, changes, _ = finished(runs, fresh("whole"), arguments)
    for point in points(len(changes)):
        folder = fresh(f"killed-{point}-")
        outcome = runs(folder, *arguments, kill_at=point)
        assert outcome.status == -signal.SIGKILL, outcome.err
        assert resumed(runs, folder, arguments) == whole, f"killed at {point}: {changes[point - 1]}"
        shutil.rmtree(folder)


def killed_at_times(runs, fresh, count, kills):
    """`count` runs, each killed `kills` times at random moments, the first or the next time it is tried."""
    whole, _, seconds = finished(runs, fresh("whole"), SETTINGS)
    chance, killed = random.Random(count), 0
    for number in range(count):
        folder = fresh(f"run-{number}-")
        for _ in range(kills):
            going_on = (folder / "run/config.yml").exists()
            words = ["--resume", "run"] if going_on else SETTINGS
            outcome = runs(folder, *words, signals=[(chance.uniform(0, seconds), signal.SIGKILL)])
            assert outcome.status in (0, -signal.SIGKILL), outcome.err
            killed += outcome.status != 0
        assert resumed(runs, folder, SETTINGS) == whole
        shutil.rmtree(folder)
    assert killed >= count * kills / 3


def test_a_run_that_is_killed_while_it_writes_ends_as_if_it_had_not_been(runs, fresh):
    def some(last):
        return [1, *sorted(random.Random(0).sample(range(2, last + 1), 7))]

    killed_everywhere(runs, fresh, SETTINGS, some)


def test_a_run_that_is_killed_at_any_time_twice_ends_as_if_it_had_not_been(runs, fresh):
    killed_at_times(runs, fresh, 3, 2)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_killed_anywhere_ends_as_if_it_had_not_been(runs, fresh, kind):
    killed_everywhere(runs, fresh, [*SETTINGS, *KINDS[kind]], lambda last: range(1, last + 1))


@pytest.mark.exhaustive
@pytest.mark.parametrize(("count", "kills"), [(100, 1), (20, 2), (10, 4)])
def test_runs_that_are_killed_at_any_time_end_as_if_they_had_not_been(runs, fresh, count, kills):
    killed_at_times(runs, fresh, count, kills)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_training_goes_on_from_the_middle_of_an_epoch(runs, fresh, kind):
    arguments = [*SETTINGS, *KINDS[kind]]
    whole, *_ = finished(runs, fresh("whole"), arguments)
    folder = fresh("stopped")
    outcome = runs(folder, *arguments, "training.checkpoint_every=2", at_step={3: [signal.SIGTERM]})
    assert outcome.status == 143
    edit(folder / "run/config.yml", "checkpoint_every: 2", "checkpoint_every: 1")
    assert newest_good(folder) == 3
    assert resumed(runs, folder, arguments) == whole


def test_each_folder_is_on_the_disk_before_it_gets_its_name(whole):
    changes = [(kind, Path(path)) for kind, path in whole[1]]
    targets = re.compile(r"model|step-\d+")
    named = [n for n, (kind, path) in enumerate(changes) if kind == "rename" and targets.fullmatch(path.name)]
    assert {changes[n][1].name for n in named} == {"model", *(f"step-{step:08}" for step in range(1, 7))}
    for number in named:
        target = changes[number][1]
        begin = number
        while any(path.name.startswith(f".{target.name}.") for path in list_of(changes[begin - 1][1])):
            begin -= 1
        check_order(changes[begin : number + 2], target)


def list_of(path):
    return path, path.parent


def check_order(changes, target):
    """Files, the list of sums last; all of them synced; the folder; the new name; the folder of the name."""
    *before, rename, last = changes
    written = list(dict.fromkeys(path for kind, path in before if kind == "write"))
    synced = [path for kind, path in before if kind == "sync"]
    assert len(written) >= 5 and written[-1].name == "SHA256SUMS"
    assert set(synced) == {*written, written[0].parent} and synced[-1] == written[0].parent
    assert [kind for kind, _ in before] == ["write"] * (len(before) - len(synced)) + ["sync"] * len(synced)
    assert (rename, last) == (("rename", target), ("sync", target.parent))


def test_checkpoints_change_nothing(runs, fresh, whole):
    folder = fresh("never")
    assert runs(folder, *SETTINGS, "training.checkpoint_every=null").status == 0
    assert [path.name for path in (folder / "run/checkpoints").iterdir()] == ["step-00000006"]
    for name in ("model/model.safetensors", "model/config.json"):
        assert hashlib.sha256((folder / "run" / name).read_bytes()).hexdigest() == whole[0][name]
    assert metrics(folder / "run") == whole[0]["metrics"]


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "first byte": lambda path: flip(path, 0),
    "middle byte": lambda path: flip(path, 0.5),
    "last byte": lambda path: flip(path, 1),
    "cut by a byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a byte too much": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "empty": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
    "a link": lambda path: path.symlink_to(path.rename(path.parent.parent / "elsewhere")),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "beside another": lambda path: (path.parent / "one_more.safetensors").write_bytes(b""),
}


def test_a_damaged_checkpoint_is_not_used_but_the_one_before_it(runs, stopped, whole, tmp_path):
    newest = stopped / "run/checkpoints/step-00000004"
    for file in sorted(newest.iterdir()):
        for damage in DAMAGES.values():
            copy = shutil.copytree(newest, tmp_path / "copy")
            damage(copy / file.name)
            with pytest.raises(Damaged):
                read_sealed(copy)
            shutil.rmtree(copy)
            (tmp_path / "elsewhere").unlink(missing_ok=True)
    flip(newest / "exp_avg.safetensors", 0.5)
    outcome = runs(stopped, "--resume", "run", at_step={4: [signal.SIGTERM]})
    assert outcome.status == 143
    assert "step-00000004: exp_avg.safetensors is not what was written; not used\n" in outcome.err
    assert "Resuming run after step 3," in outcome.out
    assert {path.name[-1] for path in (stopped / "run/checkpoints").iterdir()} == {"3", "4"}
    assert resumed(runs, stopped, []) == whole[0]


@pytest.mark.parametrize(
    "facts",
    [
        "{}",
        "{",
        "[]",
        "[" * 100_000,
        '{"format": 1}',
        '{"format": 2, "files": []}',
        '{"format": 1, "files": []}',
    ],
)
def test_facts_that_are_none_are_damage_too(runs, stopped, whole, facts):
    newest = stopped / "run/checkpoints/step-00000004"
    (newest / "state.json").write_text(facts)
    seal(newest)
    outcome = runs(stopped, "--resume", "run", at_step={5: [signal.SIGTERM]})
    assert outcome.status == 143
    assert "checkpoints/step-00000004: " in outcome.err and "Resuming run after step 3," in outcome.out


def test_a_stranger_among_the_checkpoints_is_left_alone(runs, stopped, whole):
    checkpoints = stopped / "run/checkpoints"
    (checkpoints / "step-9").write_text("not a folder")
    (checkpoints / "step-8").symlink_to(stopped / "encoder")
    (stopped / "run/.git").mkdir()
    (stopped / "run/.model.notes").symlink_to(stopped / "encoder")
    (stopped / "run/.model.abc").mkdir()
    outcome = runs(stopped, "--resume", "run")
    assert outcome.status == 0, outcome.err
    assert {path.name for path in (stopped / "run").glob(".*")} == {".git", ".model.notes"}
    assert (checkpoints / "step-9").read_text() == "not a folder" and (stopped / "encoder").is_dir()


def test_without_a_whole_checkpoint_the_run_does_not_go_on(runs, stopped):
    for path in (stopped / "run/checkpoints").iterdir():
        (path / "best.safetensors").unlink()
    before = contents(stopped)
    outcome = runs(stopped, "--resume=run")
    assert outcome.status == 2
    assert outcome.err.count("best.safetensors is missing") == 2
    assert "no checkpoint is left to go on from" in outcome.err and "Traceback" not in outcome.err
    assert contents(stopped) == before


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "..", ".secret", "a/b"])
def test_a_list_of_sums_does_not_lead_out_of_the_folder(tmp_path, name):
    (tmp_path / "secret").write_bytes(b"x")
    write_sealed(tmp_path / "folder", [("a", [b"a"])])
    with open(tmp_path / "folder/SHA256SUMS", "a") as file:
        file.write(f"{hashlib.sha256(b'x').hexdigest()}  {name}\n")
    with pytest.raises(Damaged, match="no list of sums"):
        read_sealed(tmp_path / "folder")


@pytest.mark.parametrize(
    "damage",
    [
        shutil.rmtree,
        lambda path: flip(path / "model.safetensors", 0.5),
        lambda path: (flip(path / "model.safetensors", 0.5), seal(path)),  # whole, but another model
    ],
)
def test_the_kept_model_is_made_again_where_it_is_not_the_best_one(runs, stopped, killed, whole, damage):
    damage(stopped / "run/model")
    # before the next epoch ends, which may put a better one there
    outcome = runs(stopped, "--resume", "run", at_step={5: [signal.SIGTERM]})
    assert outcome.status == 143
    assert {path.name for path in (stopped / "run/model").iterdir()} == {
        path.name for path in (killed / "run/model").iterdir()
    }
    for path in (killed / "run/model").iterdir():
        assert (stopped / "run/model" / path.name).read_bytes() == path.read_bytes()
    assert resumed(runs, stopped, []) == whole[0]


def test_a_finished_run_is_said_to_be_finished(runs, stopped, whole):
    assert resumed(runs, stopped, []) == whole[0]
    outcome = runs(stopped, "--resume", "run")
    assert (outcome.status, outcome.err, outcome.changes) == (0, "", [])
    assert outcome.out == "run is finished: there is nothing to resume\n"


def test_without_a_checkpoint_it_begins_again(runs, fresh, whole):
    folder = fresh("begun")
    runs(folder, *SETTINGS, "training.checkpoint_every=null", at_step={3: [signal.SIGKILL]})
    assert not (folder / "run/checkpoints").exists()
    assert metrics(folder / "run") == whole[0]["metrics"][:1]
    edit(folder / "run/config.yml", "checkpoint_every: null", "checkpoint_every: 1")
    outcome = runs(folder, "--resume", "run")
    assert outcome.status == 0
    assert "there is no checkpoint yet; starting from the beginning" in outcome.err
    assert fingerprint(folder / "run") == whole[0]


def test_the_newest_run_is_resumed_unless_one_is_named(runs, fresh):
    folder = fresh("several")
    for step in (3, 5):
        assert runs(folder, *SETTINGS, "output_dir=null", at_step={step: [signal.SIGTERM]}).status == 143
    older, newer = sorted(path for path in (folder / "runs").iterdir() if not path.is_symlink())
    assert (folder / "runs/latest").resolve() == newer
    outcome = runs(folder, "--resume=runs/latest")
    assert outcome.status == 0 and f"Resuming runs/{newer.name} after step 5" in outcome.out
    assert (folder / "runs/latest").resolve() == newer
    assert f"runs/{newer.name} is finished" in runs(folder, "--resume").out
    assert f"Resuming runs/{older.name} after step 3" in runs(folder, f"--resume=runs/{older.name}").out


def test_a_signal_while_the_test_set_is_scored_loses_no_training(runs, fresh):
    folder = fresh("testing")
    words = [*SETTINGS, "data.test=rows.jsonl", "training.checkpoint_every=null"]
    assert runs(folder, *words, at_step={"test": [signal.SIGINT]}).status == 130
    weights = (folder / "run/model/model.safetensors").read_bytes()
    outcome = runs(folder, "--resume", "run")
    assert outcome.status == 0 and "Epoch" not in outcome.out and "Test, with the best" in outcome.out
    assert (folder / "run/model/model.safetensors").read_bytes() == weights
    assert list(metrics(folder / "run")[-1]) == ["test"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda folder: ["training.learning_rate=0.5", "training.seed=1"],
            "training.learning_rate was 0.001 and is 0.5\ntraining.seed was 0 and is 1\n",
        ),
        (lambda folder: ["output_dir=elsewhere"], 'output_dir was "run" and is "elsewhere"\n'),
        (
            lambda folder: edit(folder / "run/config.yml", "seed: 0", "seed: 3"),
            "is of other settings:\ntraining.seed was 0 and is 3\n",
        ),
        (lambda folder: edit(folder / "rows.jsonl", "won", "the"), "\nrows.jsonl has changed\n"),
        (
            lambda folder: edit(folder / "encoder/tokenizer.json", '"lowercase": true', '"lowercase": false'),
            "\nthe encoder's tokenizer.json has changed\n",
        ),
        (lambda folder: (folder / "run/config.yml").unlink(), "no config.yml in it, so it is no run's"),
    ],
)
def test_what_has_changed_is_refused_and_shown(runs, stopped, change, reason):
    words = change(stopped) or []
    before = contents(stopped)
    outcome = runs(stopped, "--resume", "run", *words)
    assert outcome.status == 2
    assert reason in outcome.err and "Traceback" not in outcome.err
    assert contents(stopped) == before


def test_another_machine_is_a_warning_and_time_goes_on(runs, stopped):
    state = stopped / "run/checkpoints/step-00000004/state.json"
    edit(state, '"threads": 1', '"threads": 64')
    state.write_text(
        re.sub(r'"seconds": [\d.]+,\n  "best"', '"seconds": 1000.0,\n  "best"', state.read_text())
    )
    seal(state.parent)
    outcome = runs(stopped, "--resume", "run", "training.checkpoint_every=2", "cache_dir=elsewhere")
    assert outcome.status == 0
    assert "warning: threads was 64 and is 1; the result may differ in its last digits\n" in outcome.err
    second = (stopped / "run/metrics.jsonl").read_text().splitlines()[1]
    assert 1000 <= json.loads(second)["seconds"] < 1100


def test_another_number_of_processes_is_refused(runs, stopped):
    for state in stopped.glob("run/checkpoints/*/state.json"):
        edit(state, '"processes": 1', '"processes": 2')
        seal(state.parent)
    outcome = runs(stopped, "--resume", "run")
    assert outcome.status == 2
    assert "step-00000004 is of 2 processes, and there are 1 now" in outcome.err


def test_epochs_without_a_better_score_count_on(runs, fresh):
    folder = fresh("early")
    still = ["training.learning_rate=1e-12", "training.head_learning_rate=1e-12"]
    words = [*still, "training.num_epochs=9", "training.early_stopping=2"]
    assert runs(folder, *SETTINGS, *words, at_step={5: [signal.SIGTERM]}).status == 143
    outcome = runs(folder, "--resume", "run")
    assert "Stopping early: 2 epochs without a better dev score" in outcome.out
    assert [row.get("epoch") for row in metrics(folder / "run")] == [1, 2, 3, None]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_behind_its_step_and_says_how_to_go_on(runs, fresh, whole, number):
    folder = fresh("signal")
    outcome = runs(folder, *SETTINGS, "training.checkpoint_every=100", at_step={4: [number]})
    assert outcome.status == 128 + number
    assert outcome.err.endswith(
        f"stopped by {number.name}; the newest checkpoint is run/checkpoints/step-00000004, "
        "the best model so far run/model; to go on: python task_4.py --resume run\n"
    )
    assert "Traceback" not in outcome.err
    edit(folder / "run/config.yml", "checkpoint_every: 100", "checkpoint_every: 1")
    assert resumed(runs, folder, []) == whole[0]


def stopped_at_times(runs, fresh, whole, count):
    """Runs that a signal stops wherever they are, and again when they go on."""
    chance = random.Random(1)
    for number in range(count):
        folder = fresh(f"signals-{number}-")
        words, status = SETTINGS, None
        while status != 0:
            moment = (chance.uniform(0, whole[2]), chance.choice([signal.SIGINT, signal.SIGTERM]))
            status, _, said, _ = runs(folder, *words, signals=[moment])
            # where it has not begun, SIGTERM ends it as it ends any process
            assert status in (0, 128 + moment[1], -signal.SIGTERM), said
            assert "Traceback" not in said
            if (folder / "run/config.yml").exists():
                words = ["--resume", "run"]
        assert fingerprint(folder / "run") == whole[0]
        shutil.rmtree(folder)


def test_a_signal_at_any_time_stops_a_run_that_can_go_on(runs, fresh, whole):
    stopped_at_times(runs, fresh, whole, 2)


@pytest.mark.exhaustive
def test_signals_at_any_times_stop_runs_that_can_go_on(runs, fresh, whole):
    stopped_at_times(runs, fresh, whole, 50)


def test_a_second_signal_ends_the_run_at_once(runs, fresh, whole):
    folder = fresh("signals")
    outcome = runs(folder, *SETTINGS, at_step={4: [signal.SIGINT, signal.SIGINT]})
    assert outcome.status == -signal.SIGINT
    assert newest_good(folder) == 3
    assert resumed(runs, folder, []) == whole[0]


def test_a_step_that_is_not_finite_stops_the_run_with_its_rows_and_keeps_the_checkpoint(runs, fresh):
    folder = fresh("infinite")
    # the first step is fine, and what it does to the heads is not
    wild = ["training.head_learning_rate=1e38", "training.warmup=0"]
    outcome = runs(folder, *SETTINGS, *wild)
    assert outcome.status == 2
    rows = re.search(r"error: step 2: the loss or a gradient is not finite.* Its rows: (.*)\n", outcome.err)[
        1
    ]
    path, lines = rows.split(":")
    assert path == "rows.jsonl" and len(set(lines.split(", "))) == 4
    assert "the newest checkpoint is run/checkpoints/step-00000001" in outcome.err
    # those that were not in the first step
    assert runs(folder, *SETTINGS, "output_dir=first", at_step={1: [signal.SIGKILL]}).status == -9
    again = runs(folder, "--resume", "run")
    assert (again.status, again.err.splitlines()[-1]) == (2, outcome.err.splitlines()[-1])
    read_sealed(folder / "run/checkpoints/step-00000001")


@pytest.mark.parametrize("size", [0, 100, 3_000, 20_000, 60_000, 100_000])
def test_a_full_disk_is_a_line_and_the_checkpoint_before_it_stays(runs, stopped, whole, size):
    with_room(runs, stopped, whole, size)


@pytest.mark.exhaustive
def test_a_disk_that_is_full_anywhere_is_a_line(runs, killed, tmp_path, whole):
    largest = max(path.stat().st_size for path in (killed / "run").rglob("*") if path.is_file())
    for size in range(0, largest + 1000, 997):
        folder = shutil.copytree(killed, tmp_path / f"full-{size}")
        with_room(runs, folder, whole, size)
        shutil.rmtree(folder)


def with_room(runs, folder, whole, size):
    """Go on where no file can be larger than `size`, and then where it can."""
    outcome = runs(folder, "--resume", "run", largest_file=size)
    if outcome.status:
        assert outcome.status == 1
        assert re.search(r"error: File too large: \S+\n$", outcome.err) and "Traceback" not in outcome.err
    for path in (folder / "run/checkpoints").glob("step-*"):
        read_sealed(path)
    assert not list(folder.glob("run/.*")) + list(folder.glob("run/checkpoints/.*"))
    assert resumed(runs, folder, []) == whole[0]


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_small_disk_that_fills_up_or_can_not_be_written_to(runs, killed, small_disk, whole):
    folder = shutil.copytree(killed, small_disk / "copy")
    free = shutil.disk_usage(folder).free
    filling = folder / "filling"
    for room in (150_000, 20_000, 0):
        filling.write_bytes(b"x" * (free - room))
        outcome = runs(folder, "--resume", "run")
        assert outcome.status == 1
        assert re.search(r"error: No space left on device: \S+\n$", outcome.err)
        filling.unlink()
        for path in (folder / "run/checkpoints").glob("step-*"):
            read_sealed(path)
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(remount, check=True)
    before = contents(folder)
    outcome = runs(folder, "--resume", "run")
    assert (outcome.status, contents(folder)) == (1, before)
    assert re.search(r"error: Read-only file system: \S+\n$", outcome.err)
    subprocess.run([*remount[:-2], "remount,rw", str(small_disk)], check=True)
    assert resumed(runs, folder, []) == whole[0]


def test_a_second_run_in_a_folder_is_refused(runs, stopped):
    handle = os.open(stopped / "run", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    before = contents(stopped)
    outcome = runs(stopped, "--resume", "run")
    os.close(handle)
    assert (outcome.status, outcome.err) == (2, "error: run: another process trains in it\n")
    assert contents(stopped) == before
    assert runs(stopped, "--resume", "run").status == 0
