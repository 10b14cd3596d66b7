"""Damaged or changed checkpoints and runs are refused, or replaced with a warning."""

import hashlib
import json
import re
import shutil
import signal

import pytest
from resuming import SETTINGS, contents, edit, flip, resumed, seal

from multitask.common.checksums import ChecksumError, read_verified, write_with_checksums

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


def test_a_damaged_checkpoint_is_skipped_for_the_one_before(runs, stopped, whole, tmp_path):
    newest = stopped / "run/checkpoints/step-00000004"
    for file in sorted(newest.iterdir()):
        for damage in DAMAGES.values():
            copy = shutil.copytree(newest, tmp_path / "copy")
            damage(copy / file.name)
            with pytest.raises(ChecksumError):
                read_verified(copy)
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
def test_an_invalid_state_file_counts_as_damage(runs, stopped, whole, facts):
    newest = stopped / "run/checkpoints/step-00000004"
    (newest / "state.json").write_text(facts)
    seal(newest)
    outcome = runs(stopped, "--resume", "run", at_step={5: [signal.SIGTERM]})
    assert outcome.status == 143
    assert "checkpoints/step-00000004: " in outcome.err and "Resuming run after step 3," in outcome.out


def test_foreign_files_among_the_checkpoints_stay(runs, stopped, whole):
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


def test_without_an_undamaged_checkpoint_resuming_is_refused(runs, stopped):
    for path in (stopped / "run/checkpoints").iterdir():
        (path / "best.safetensors").unlink()
    before = contents(stopped)
    outcome = runs(stopped, "--resume=run")
    assert outcome.status == 2
    assert outcome.err.count("best.safetensors is missing") == 2
    assert "no undamaged checkpoint is left to resume from" in outcome.err and "Traceback" not in outcome.err
    assert contents(stopped) == before


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "..", ".secret", "a/../secret", "b/c/d", "b/.c"]
)
def test_a_list_of_checksums_names_no_file_outside_the_folder(tmp_path, name):
    (tmp_path / "secret").write_bytes(b"x")
    write_with_checksums(tmp_path / "folder", [("a", [b"a"])])
    with open(tmp_path / "folder/SHA256SUMS", "a") as file:
        file.write(f"{hashlib.sha256(b'x').hexdigest()}  {name}\n")
    with pytest.raises(ChecksumError, match="no list of checksums"):
        read_verified(tmp_path / "folder")


@pytest.mark.parametrize(
    "damage",
    [
        shutil.rmtree,
        lambda path: flip(path / "model.safetensors", 0.5),
        lambda path: (flip(path / "model.safetensors", 0.5), seal(path)),  # undamaged, but another model
    ],
)
def test_a_model_that_is_not_the_best_one_is_written_again(runs, stopped, killed, whole, damage):
    damage(stopped / "run/model")
    # stops before the next epoch ends, which may write a better model
    outcome = runs(stopped, "--resume", "run", at_step={5: [signal.SIGTERM]})
    assert outcome.status == 143
    made, first = (
        {path.relative_to(folder): content for path, content in contents(folder / "run/model").items()}
        for folder in (stopped, killed)
    )
    assert made == first
    assert resumed(runs, stopped, []) == whole[0]


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
            "was made with other settings:\ntraining.seed was 0 and is 3\n",
        ),
        (lambda folder: edit(folder / "rows.jsonl", "won", "the"), "\nrows.jsonl has changed\n"),
        (
            lambda folder: edit(folder / "encoder/tokenizer.json", '"lowercase": true', '"lowercase": false'),
            "\nthe encoder's tokenizer.json has changed\n",
        ),
        (
            lambda folder: (folder / "run/config.yml").unlink(),
            "run is not the folder of a run: it has no config.yml",
        ),
    ],
)
def test_changed_inputs_are_refused_by_name(runs, stopped, change, reason):
    words = change(stopped) or []
    before = contents(stopped)
    outcome = runs(stopped, "--resume", "run", *words)
    assert outcome.status == 2
    assert reason in outcome.err and "Traceback" not in outcome.err
    assert contents(stopped) == before


def test_another_machine_causes_a_warning_and_seconds_add_up(runs, stopped):
    state = stopped / "run/checkpoints/step-00000004/state.json"
    edit(state, '"threads": 1', '"threads": 64')
    state.write_text(
        re.sub(r'"seconds": [\d.]+,\n  "best"', '"seconds": 1000.0,\n  "best"', state.read_text())
    )
    seal(state.parent)
    outcome = runs(stopped, "--resume", "run", "training.checkpoint_every=2", "cache_dir=elsewhere")
    assert outcome.status == 0
    assert "warning: threads was 64 and is 1; the result may differ\n" in outcome.err
    second = (stopped / "run/metrics.jsonl").read_text().splitlines()[1]
    assert 1000 <= json.loads(second)["seconds"] < 1100


def test_another_number_of_processes_is_refused(runs, stopped):
    for state in stopped.glob("run/checkpoints/*/state.json"):
        edit(state, '"processes": 1', '"processes": 2')
        seal(state.parent)
    outcome = runs(stopped, "--resume", "run")
    assert outcome.status == 2
    assert "step-00000004 was written with 2 processes, this run has 1:" in outcome.err


def test_a_step_that_is_not_finite_stops_the_run_and_names_its_rows(runs, fresh):
    folder = fresh("infinite")
    # the first step is finite, but its update makes the heads overflow
    wild = ["training.head_learning_rate=1e38", "training.warmup=0"]
    outcome = runs(folder, *SETTINGS, *wild)
    assert outcome.status == 2
    message = re.search(
        r"error: step 2: the loss or a gradient is not finite.* Rows of this step: (.*)\n", outcome.err
    )
    path, lines = message[1].split(":")
    assert path == "rows.jsonl" and len(set(lines.split(", "))) == 4
    assert "the newest checkpoint is run/checkpoints/step-00000001" in outcome.err
    again = runs(folder, "--resume", "run")
    assert (again.status, again.err.splitlines()[-1]) == (2, outcome.err.splitlines()[-1])
    read_verified(folder / "run/checkpoints/step-00000001")
