"""What a run says when it can't go on as it is asked to: commands that work."""

import math
import os
import re
import shlex
import signal

import pytest
from task_4_runs import metrics

import task_4
from multitask.config.loading import load_settings


def train_on(shell, text: str):
    """Run the command for a new run that stands in a message → its settings and its metrics."""
    (line,) = re.findall(r"python task_4\.py (--config .*)$", text, re.MULTILINE)
    ended = shell(task_4, *shlex.split(line))
    assert ended.status == 0, ended.err
    folder = re.search(r"^Run folder: (.*)$", ended.out, re.MULTILINE)[1]
    return load_settings(f"{folder}/config.yml"), metrics(folder)


def test_more_epochs_of_a_finished_run_are_a_new_run_from_its_best_model(shell, settings_for):
    assert shell(task_4, *settings_for, "training.num_epochs=1").status == 0
    assert shell(task_4, "--resume=run").out == "run is finished: there is nothing to resume\n"
    assert shell(task_4, "--resume=run", "training.cuda_graphs=false").status == 0
    ended = shell(task_4, "--resume=run", "training.num_epochs=3")
    assert ended.status == 2
    assert "run is finished, and keeps its settings. To train its best model on with these" in ended.err
    settings, rows = train_on(shell, ended.err)
    assert (settings.model.backbone, settings.training.num_epochs, len(rows)) == ("run/model", 3, 3 + 1)


def test_a_head_that_was_new_is_kept_when_its_run_is_trained_on(shell, settings_for):
    assert shell(task_4, *settings_for).status == 0
    anew = ["model.backbone=run/model", "model.new_heads=task_a", "output_dir=anew"]
    assert shell(task_4, *settings_for, *anew).status == 0
    ended = shell(task_4, "--resume=anew", "training.num_epochs=2")
    settings, _ = train_on(shell, ended.err)
    assert (settings.model.backbone, settings.model.new_heads) == ("anew/model", ())


@pytest.mark.parametrize("steps", [1, 3])
def test_other_settings_of_a_stopped_run_are_a_new_run(shell, settings_for, monkeypatch, steps):
    real, left = task_4.gradients, iter([*[0] * (steps - 1), signal.SIGTERM])

    def gradients(*arguments):
        real(*arguments)
        if number := next(left, 0):
            os.kill(os.getpid(), number)

    monkeypatch.setattr(task_4, "gradients", gradients)
    settings = ["training.num_epochs=2", "model.token_head=convolution"]  # a CRF has no class weights
    assert shell(task_4, *settings_for, *settings).status == 143
    ended = shell(task_4, "--resume=run", "training.batch_size=3", "training.class_weights={PER: 2}")
    assert ended.status == 2
    assert "training.batch_size was 4 and is 3" in ended.err
    assert ("To begin with these" in ended.err) == (steps == 1)
    settings, rows = train_on(shell, ended.err)
    assert settings.training.batch_size == 3 and settings.training.class_weights == {"PER": 2}
    assert (settings.model.backbone == "run/model") == (steps > 1)
    assert shell(task_4, "--resume=run").status == 0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ([], {"head_learning_rate": 0.001}),
        (["model.freeze_backbone=false"], {"learning_rate": 2e-5, "head_learning_rate": 0.001}),
    ],
)
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_diverged_run_names_the_rate_it_used_and_a_command_that_works(
    shell, settings_for, monkeypatch, changes, named, epoch
):
    steps, real = [], task_4.finite_or_nan

    def diverge(loss):
        steps.append(1)
        return loss * (math.nan if len(steps) == 2 * epoch else 1)

    monkeypatch.setattr(task_4, "finite_or_nan", diverge)
    ended = shell(task_4, *settings_for, *changes, "training.num_epochs=2")
    assert ended.status == 2
    used = " or ".join(f"training.{key} ({rate:g})" for key, rate in named.items())
    assert f"A lower {used} may help" in ended.err and "--resume" not in ended.err
    assert "training.precision=fp32" not in ended.err, "it is already"
    monkeypatch.setattr(task_4, "finite_or_nan", real)
    settings, rows = train_on(shell, ended.err)
    for key, rate in named.items():
        assert getattr(settings.training, key) == pytest.approx(rate / 10)
    assert (settings.model.backbone == "run/model") == (epoch == 2)
    assert len(rows) == 2 + 1
