"""A signal stops a run where it can resume."""

import random
import shutil
import signal

import pytest
from resuming import SETTINGS, edit, fingerprint, metrics, newest_good, resumed


def test_a_signal_while_the_test_set_is_scored_loses_no_training(runs, fresh):
    folder = fresh("testing")
    words = [*SETTINGS, "data.test=rows.jsonl", "training.checkpoint_every=null"]
    assert runs(folder, *words, at_step={"finish": [signal.SIGINT]}).status == 130
    weights = (folder / "run/model/model.safetensors").read_bytes()
    card, config = folder / "run/model/README.md", folder / "run/model/config.json"
    assert "\n| dev | 0." in card.read_text() and "\n| test | 0." not in card.read_text()
    assert '"temperature_task_a": 1.0' in config.read_text()
    outcome = runs(folder, "--resume", "run")
    assert "\n| dev | 0." in card.read_text() and "\n| test | 0." in card.read_text()
    assert outcome.status == 0 and "Epoch" not in outcome.out and "Test, with the best" in outcome.out
    assert (folder / "run/model/model.safetensors").read_bytes() == weights
    assert list(metrics(folder / "run")[-1]) == ["test"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_its_step_and_tells_how_to_resume(runs, fresh, whole, number):
    folder = fresh("signal")
    outcome = runs(folder, *SETTINGS, "training.checkpoint_every=100", at_step={4: [number]})
    assert outcome.status == 128 + number
    assert outcome.err.endswith(
        f"stopped by {number.name}; the newest checkpoint is run/checkpoints/step-00000004, "
        "the best model so far run/model; to resume: python task_4.py --resume run\n"
    )
    assert "Traceback" not in outcome.err
    edit(folder / "run/config.yml", "checkpoint_every: 100", "checkpoint_every: 1")
    assert resumed(runs, folder, []) == whole[0]


def stopped_at_times(runs, fresh, whole, count):
    """Stop runs at any moment by a signal, and again after they resume."""
    chance = random.Random(1)
    for number in range(count):
        folder = fresh(f"signals-{number}-")
        words, status = SETTINGS, None
        while status != 0:
            moment = (chance.uniform(0, whole[2]), chance.choice([signal.SIGINT, signal.SIGTERM]))
            status, _, err, *_ = runs(folder, *words, signals=[moment])
            # before the run handles signals, SIGTERM ends it like any process
            assert status in (0, 128 + moment[1], -signal.SIGTERM), err
            assert "Traceback" not in err
            if (folder / "run/config.yml").exists():
                words = ["--resume", "run"]
        assert fingerprint(folder / "run") == whole[0]
        shutil.rmtree(folder)


def test_a_run_stopped_at_a_random_time_resumes(runs, fresh, whole):
    stopped_at_times(runs, fresh, whole, 2)


@pytest.mark.exhaustive
def test_runs_stopped_at_random_times_resume(runs, fresh, whole):
    stopped_at_times(runs, fresh, whole, 50)


def test_a_second_signal_ends_the_run_at_once(runs, fresh, whole):
    folder = fresh("signals")
    outcome = runs(folder, *SETTINGS, at_step={4: [signal.SIGINT, signal.SIGINT]})
    assert outcome.status == -signal.SIGINT
    assert newest_good(folder) == 3
    assert resumed(runs, folder, []) == whole[0]
