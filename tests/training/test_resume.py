"""A run that was killed or stopped and resumed ends exactly like an undisturbed run."""

import hashlib
import random
import re
import shutil
import signal
from pathlib import Path

import pytest
from resuming import SETTINGS, edit, fingerprint, finished, killed_everywhere, metrics, newest_good, resumed

KINDS = {
    "all": [],
    "heads": ["model.freeze_backbone=true"],
    "layers": ["model.freeze_layers=2", "training.layer_decay=0.5"],
    "lora": ["model.lora.rank=2", "model.lora.dropout=0.1"],
    "uncertainty": ["training.loss_weighting=uncertainty", "training.gradient_cosine=true"],
    "dwa": ["training.loss_weighting=dwa"],
    "accumulated": ["training.batch_size=2", "training.gradient_accumulation=2"],
    "without dev": ["data.dev=null"],
    "float16": ["training.precision=fp16"],
}


def killed_at_times(runs, fresh, count, kills):
    """Runs that are killed at random moments, each up to `kills` times, until there were `count` kills."""
    finished(runs, fresh("first"), SETTINGS)  # slower than all others
    whole, _, seconds = finished(runs, fresh("whole"), SETTINGS)
    moments, kill_count = random.Random(count), 0
    while kill_count < count:
        folder = fresh("killed")
        for _ in range(kills):
            words = ["--resume", "run"] if (folder / "run/config.yml").exists() else SETTINGS
            outcome = runs(folder, *words, signals=[(moments.uniform(0, seconds), signal.SIGKILL)])
            assert outcome.status in (0, -signal.SIGKILL), outcome.err
            if outcome.status == 0:
                break
            kill_count += 1
        assert resumed(runs, folder, SETTINGS) == whole
        shutil.rmtree(folder)


def test_a_run_killed_while_it_writes_resumes_to_the_same_end(runs, fresh):
    def some(last):
        return [1, *sorted(random.Random(0).sample(range(2, last + 1), 7))]

    killed_everywhere(runs, fresh, SETTINGS, some)


def test_a_run_killed_twice_at_random_times_resumes_to_the_same_end(runs, fresh):
    killed_at_times(runs, fresh, 6, 2)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_killed_at_any_write_resumes_to_the_same_end(runs, fresh, kind):
    killed_everywhere(runs, fresh, [*SETTINGS, *KINDS[kind]], lambda last: range(1, last + 1))


@pytest.mark.exhaustive
@pytest.mark.parametrize(("count", "kills"), [(100, 1), (50, 2), (50, 4)])
def test_runs_killed_at_random_times_resume_to_the_same_end(runs, fresh, count, kills):
    killed_at_times(runs, fresh, count, kills)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_training_resumes_in_the_middle_of_an_epoch(runs, fresh, kind):
    arguments = [*SETTINGS, *KINDS[kind]]
    whole, *_ = finished(runs, fresh("whole"), arguments)
    folder = fresh("stopped")
    outcome = runs(folder, *arguments, "training.checkpoint_every=2", at_step={3: [signal.SIGTERM]})
    assert outcome.status == 143
    edit(folder / "run/config.yml", "checkpoint_every: 2", "checkpoint_every: 1")
    assert newest_good(folder) == 3
    assert resumed(runs, folder, arguments) == whole


def test_a_run_killed_while_it_finishes_resumes_to_the_same_end(runs, fresh, whole, tmp_path):
    folder = fresh("trained")
    assert runs(folder, *SETTINGS, at_step={"finish": [signal.SIGKILL]}).status == -signal.SIGKILL
    resume = ["--resume", "run"]
    changes = runs(shutil.copytree(folder, tmp_path / "whole"), *resume).changes
    first = next(at for at, (kind, _) in enumerate(changes, 1) if kind == "link")
    renamed = next(at for at, (kind, _) in enumerate(changes, 1) if kind == "rename" and at > first)
    last = max(at for at, (kind, _) in enumerate(changes, 1) if kind == "write" and at < renamed)
    page = next(at for at, (_, path) in enumerate(changes, 1) if ".report.html." in path)
    named = next(at for at, (_, path) in enumerate(changes, 1) if path.endswith("/report.html"))
    for point in (last, renamed, renamed + 1, page, named + 1):
        copy = shutil.copytree(folder, tmp_path / f"killed-{point}")
        assert runs(copy, *resume, kill_at=point).status == -signal.SIGKILL
        card = (copy / "run/model/README.md").read_text()
        assert ("logits are divided by" in card) == (point > renamed), changes[point - 1]
        assert (copy / "run/report.html").exists() == (point > named)
        assert resumed(runs, copy, []) == whole[0], changes[point - 1]
        assert (copy / "run/report.html").read_text().endswith("</html>\n")


def test_each_folder_is_synced_before_it_gets_its_name(whole):
    changes = [(kind, Path(path)) for kind, path in whole[1]]
    targets = re.compile(r"model|step-\d+")
    named = [n for n, (kind, path) in enumerate(changes) if kind == "rename" and targets.fullmatch(path.name)]
    assert {changes[n][1].name for n in named} == {"model", *(f"step-{step:08}" for step in range(1, 7))}
    for number in named:
        target = changes[number][1]
        begin = number
        while any(part.startswith(f".{target.name}.") for part in changes[begin - 1][1].parts):
            begin -= 1
        check_order(changes[begin : number + 2], target)


def check_order(changes, target):
    """Order: files (checksums last), their syncs, the folder's sync, the rename, the parent's sync."""
    *before, rename, last = changes
    made = list(dict.fromkeys(path for kind, path in before if kind != "sync"))
    synced = [path for kind, path in before if kind == "sync"]
    assert len(made) >= 5 and made[-1].name == "SHA256SUMS"
    assert set(synced) == {*made, *(path.parent for path in made)} and synced[-1] == made[-1].parent
    kinds = [kind for kind, _ in before]
    assert kinds == sorted(kinds, key=["link", "write", "sync"].index)
    assert (rename, last) == (("rename", target), ("sync", target.parent))


def test_checkpoints_change_nothing(runs, fresh, whole):
    folder = fresh("never")
    assert runs(folder, *SETTINGS, "training.checkpoint_every=null").status == 0
    assert [path.name for path in (folder / "run/checkpoints").iterdir()] == ["step-00000006"]
    for name in ("model/model.safetensors", "model/config.json"):
        assert hashlib.sha256((folder / "run" / name).read_bytes()).hexdigest() == whole[0][name]
    assert metrics(folder / "run") == whole[0]["metrics"]


def test_a_finished_run_is_reported_as_finished(runs, stopped, whole):
    assert resumed(runs, stopped, []) == whole[0]
    outcome = runs(stopped, "--resume", "run")
    assert (outcome.status, outcome.err, outcome.changes) == (0, "", [])
    assert outcome.out == "run is finished: there is nothing to resume\n"


def test_a_run_without_a_checkpoint_starts_over(runs, fresh, whole):
    folder = fresh("begun")
    runs(folder, *SETTINGS, "training.checkpoint_every=null", at_step={3: [signal.SIGKILL]})
    assert not (folder / "run/checkpoints").exists()
    assert metrics(folder / "run") == whole[0]["metrics"][:1]
    edit(folder / "run/config.yml", "checkpoint_every: null", "checkpoint_every: 1")
    outcome = runs(folder, "--resume", "run")
    assert outcome.status == 0
    assert "there is no checkpoint yet; starting from the beginning" in outcome.err
    assert fingerprint(folder / "run") == whole[0]


def test_the_newest_unfinished_run_is_resumed_unless_one_is_named(runs, fresh):
    folder = fresh("several")
    for step in (3, 5):
        assert runs(folder, *SETTINGS, "output_dir=null", at_step={step: [signal.SIGTERM]}).status == 143
    older, newer = sorted(path for path in (folder / "runs").iterdir() if not path.is_symlink())
    assert (folder / "runs/latest").resolve() == newer
    outcome = runs(folder, "--resume=runs/latest")
    assert outcome.status == 0 and f"Resuming runs/{newer.name} after step 5" in outcome.out
    assert (folder / "runs/latest").resolve() == newer
    assert f"runs/{newer.name} is finished" in runs(folder, f"--resume=runs/{newer.name}").out
    assert f"Resuming runs/{older.name} after step 3" in runs(folder, "--resume").out
    assert f"runs/{newer.name} is finished" in runs(folder, "--resume").out


def test_a_resumed_run_keeps_counting_epochs_without_a_better_score(runs, fresh):
    folder = fresh("early")
    still = ["training.learning_rate=1e-12", "training.head_learning_rate=1e-12"]
    words = [*still, "training.num_epochs=9", "training.early_stopping=2"]
    assert runs(folder, *SETTINGS, *words, at_step={5: [signal.SIGTERM]}).status == 143
    outcome = runs(folder, "--resume", "run")
    assert "Stopping early: 2 epochs without a better dev score" in outcome.out
    assert [row.get("epoch") for row in metrics(folder / "run")] == [1, 2, 3, None]
