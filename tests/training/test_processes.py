"""Several processes train the same model as one."""

import signal

import pytest
import torch
from alike import ALIKE, assert_alike, result
from conftest import ROOT
from several import together

TASK_4 = ROOT / "task_4.py"


@pytest.fixture
def train_both(runs, settings_for, tmp_path):
    """Train in two forked processes → what the run ends with; faster than by torchrun."""

    def train(*overrides):
        outcome = runs(tmp_path, *settings_for, "output_dir=both", *overrides, processes=2)
        assert outcome.status == 0, outcome.err
        return result(tmp_path / "both")

    return train


def test_torchrun_trains_in_two_processes(settings_for, tmp_path):
    ended = together(tmp_path, TASK_4, *settings_for, "training.num_epochs=3", "output_dir=both")
    assert ended.stdout.count("Epoch 1/3") == 1, "only the first process prints"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("both")] == ["both"]


@pytest.mark.parametrize(
    "weighting",
    [
        ["training.loss_weighting=fixed"],
        ["training.loss_weighting=uncertainty"],
        ["training.class_weights=balanced", "training.label_smoothing=0.1"],
        ["model.token_head=convolution_crf"],
    ],
    ids=["fixed", "uncertainty", "class weights", "crf"],
)
def test_two_processes_with_half_the_batch_train_the_same_model(train_run, train_both, weighting):
    settings = [
        *ALIKE,
        "model.freeze_backbone=false",
        # small enough to hide rounding errors, which Adam scales up where a gradient is near zero
        "training.learning_rate=3e-3",
        # clips the first step only: a factor on all gradients would change nothing with Adam
        "training.max_grad_norm=2.55",
        *weighting,
    ]
    both = train_both(*settings, "training.batch_size=4")
    assert_alike(train_run("alone", *settings, "training.batch_size=8"), both)


def test_two_processes_share_the_rows_of_the_loss_on_dev(train_run, train_both):
    settings = [*ALIKE, "training.select_by=loss", "training.head_learning_rate=1e-2"]
    (both, _), (alone, _) = (
        train_both(*settings, "training.batch_size=4"),
        train_run("alone", *settings, "training.batch_size=8"),
    )
    losses = [[row["dev"]["loss"] for row in rows[:-1]] for rows in (both, alone)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4) and len(set(losses[0])) == 3


def test_a_process_without_rows_in_a_step_takes_part(train_run, train_both, tmp_path):
    # of seven rows in steps of six, the second step has one
    settings = [*ALIKE, "model.freeze_backbone=false", "training.learning_rate=1e-3"]
    # learned weights depend on the number of passes of a step, unless each pass counts a share of their term
    settings += ["training.loss_weighting=uncertainty", "training.head_learning_rate=1e-2"]
    rows = (tmp_path / "rows.jsonl").read_text().splitlines()
    (tmp_path / "seven.jsonl").write_text("\n".join(rows[:7]) + "\n")
    settings += [f"data.train={tmp_path / 'seven.jsonl'}"]
    both = train_both(*settings, "training.batch_size=3")
    assert_alike(train_run("alone", *settings, "training.batch_size=6"), both)


def test_only_the_first_process_reports_an_error(runs, settings_for, tmp_path):
    ended = runs(tmp_path, *settings_for, "data.train=nowhere.jsonl", processes=2)
    assert ended.statuses == [2, 2]
    assert ended.err.count("error: ") == ended.err.count("error: nowhere.jsonl: no such file") == 1
    assert "RuntimeError" not in ended.err and "terminate called" not in ended.err


@pytest.mark.parametrize(("number", "ranks"), [(signal.SIGKILL, [0, 1]), (signal.SIGTERM, [1])])
def test_two_processes_resume_after_a_signal(runs, train_both, settings_for, tmp_path, number, ranks):
    """SIGKILL ends both processes; SIGTERM to one of them stops the other one too."""
    settings = ["model.freeze_backbone=false", "training.learning_rate=1e-3", "training.batch_size=2"]
    settings += ["training.num_epochs=3", "training.checkpoint_every=1"]
    rows, weights = train_both(*settings)
    stop = {"at_step": {4: [number]}, "ranks": ranks, "processes": 2}
    ended = runs(tmp_path, *settings_for, *settings, "output_dir=stopped", **stop)
    if number == signal.SIGKILL:
        assert ended.status == -number
    else:
        assert ended.status == 128 + number
        newest = "stopped/checkpoints/step-00000004"
        assert f"stopped by SIGTERM; the newest checkpoint is {newest}" in ended.err
    resumed = runs(tmp_path, "--resume", "stopped", processes=2)
    assert resumed.status == 0, resumed.err
    assert "Resuming stopped after step" in resumed.out
    other_rows, other_weights = result(tmp_path / "stopped")
    assert rows == other_rows
    assert all(torch.equal(weight, other_weights[name]) for name, weight in weights.items())
