"""Several processes train the same model as one."""

import os
import re
import signal
import subprocess
import time

import pytest
import torch
from alike import ALIKE, assert_alike, result
from conftest import ROOT
from several import ONE_THREAD, launch, together

TASK_4 = ROOT / "task_4.py"


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty"])
def test_two_processes_with_half_the_batch_train_the_same_model(train_run, settings_for, tmp_path, weighting):
    settings = [
        *ALIKE,
        "model.freeze_backbone=false",
        # large steps would also show rounding: Adam scales up a gradient that is nearly nothing
        "training.learning_rate=3e-3",
        # between the norms of the first step and of the others: Adam does not see a factor that all have
        "training.max_grad_norm=2.55",
        f"training.loss_weighting={weighting}",
    ]
    ended = together(tmp_path, TASK_4, *settings_for, *settings, "training.batch_size=4", "output_dir=both")
    alone = train_run("alone", *settings, "training.batch_size=8")
    assert_alike(alone, result(tmp_path / "both"))
    assert ended.stdout.count("Epoch 1/3") == 1, "one process speaks"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("both")] == ["both"]


def test_a_process_without_rows_in_a_step_takes_part(train_run, settings_for, tmp_path):
    # of seven rows in steps of six, the second step has one
    settings = [*ALIKE, "model.freeze_backbone=false", "training.learning_rate=1e-3"]
    # learned weights see how many passes a step has: each counts its share of what is not a task's loss
    settings += ["training.loss_weighting=uncertainty", "training.head_learning_rate=1e-2"]
    rows = (tmp_path / "rows.jsonl").read_text().splitlines()
    (tmp_path / "seven.jsonl").write_text("\n".join(rows[:7]) + "\n")
    settings += [f"data.train={tmp_path / 'seven.jsonl'}"]
    together(tmp_path, TASK_4, *settings_for, *settings, "training.batch_size=3", "output_dir=both")
    assert_alike(train_run("alone", *settings, "training.batch_size=6"), result(tmp_path / "both"))


def test_of_two_processes_one_says_what_is_wrong(settings_for, tmp_path):
    words = [*settings_for, "data.train=nowhere.jsonl"]
    ended = subprocess.run(
        launch(TASK_4, *words), cwd=tmp_path, capture_output=True, text=True, env=ONE_THREAD
    )
    assert ended.returncode == 1  # the launcher's, which reports what its processes end with
    assert ended.stderr.count("error: ") == ended.stderr.count("error: nowhere.jsonl: no such file") == 1
    assert re.findall(r"exitcode +: (-?\d+)", ended.stderr)[-1] == "2", "of the first one to end"
    assert "RuntimeError" not in ended.stderr and "terminate called" not in ended.stderr


@pytest.mark.parametrize(
    "signals",
    [
        [signal.SIGKILL],
        pytest.param([signal.SIGTERM], marks=pytest.mark.exhaustive),
        pytest.param([signal.SIGKILL, signal.SIGTERM], marks=pytest.mark.exhaustive),
    ],
)
def test_two_processes_that_are_killed_or_stopped_go_on(settings_for, tmp_path, signals):
    settings = [
        *settings_for,
        "model.freeze_backbone=false",
        "training.learning_rate=1e-3",
        "training.batch_size=2",
        "training.num_epochs=8",
        "training.checkpoint_every=1",
    ]
    together(tmp_path, TASK_4, *settings, "output_dir=whole")
    folder = tmp_path / "broken"
    for step, number in zip((3, 6), signals):
        words = ["--resume", "broken"] if folder.exists() else [*settings, "output_dir=broken"]
        launcher = subprocess.Popen(
            launch(TASK_4, *words),
            cwd=tmp_path,
            env=ONE_THREAD,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        while not any(int(path.name[5:]) >= step for path in folder.glob("checkpoints/step-*")):
            assert launcher.poll() is None, launcher.communicate()
            time.sleep(0.01)
        children = subprocess.run(["pgrep", "-P", str(launcher.pid)], capture_output=True, text=True).stdout
        workers = list(map(int, children.split()))
        # all at once, or one alone, with which the other one stops
        for process in [launcher.pid, *workers] if number == signal.SIGKILL else workers[-1:]:
            os.kill(process, number)
        said = launcher.communicate()
        assert launcher.returncode != 0
        if number == signal.SIGTERM:
            assert b"stopped by SIGTERM; the newest checkpoint is broken/checkpoints/step-000000" in said[1]
    ended = together(tmp_path, TASK_4, "--resume", "broken")
    assert "Resuming broken after step" in ended.stdout
    rows, weights = result(tmp_path / "whole")
    other_rows, other_weights = result(folder)
    assert rows == other_rows
    assert all(torch.equal(weight, other_weights[name]) for name, weight in weights.items())
