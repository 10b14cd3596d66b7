"""Runs of task_4 that are to end alike: what makes training fast or splits it must not change it."""

import json
import math
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file
from several import ONE_THREAD, launch, together
from transformers.models.bert.modeling_bert import BertEmbeddings

import task_4
from model import MultiTaskTransformer
from multitask.training import frozen_features

TASK_4 = ROOT / "task_4.py"
ALIKE = ["model.dropout=0", "training.num_epochs=3"]


def result(folder):
    rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("seconds", 0), row.pop("sentences_per_second", 0)
    return rows, load_file(Path(folder) / "model" / "model.safetensors")


def assert_alike(first, second, tolerance=2e-5):
    (rows, weights), (other_rows, other_weights) = first, second
    assert weights.keys() == other_weights.keys()
    for name, weight in weights.items():
        # attention does not depend on the keys' bias: its gradient is rounding error, which Adam scales up
        if not name.endswith("key.bias"):
            assert torch.allclose(weight, other_weights[name], atol=tolerance), name
    assert len(rows) == len(other_rows)
    for row, other in zip(rows, other_rows):
        assert row.keys() == other.keys()
        for key in ("loss", "loss_task_a", "loss_task_b"):
            assert row.get(key) == pytest.approx(other.get(key), abs=1e-4)
        assert row.get("dev") == other.get("dev")
        assert row.get("test") == other.get("test")


@pytest.fixture
def trained(shell, settings_for, tmp_path):
    def train(name, *overrides):
        ended = shell(task_4, *settings_for, f"output_dir={name}", *overrides)
        assert ended.status == 0, ended.err
        return result(tmp_path / name)

    return train


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_features_computed_once_train_the_same_model(trained, layers, monkeypatch):
    frozen = ["model.freeze_backbone=true"] if layers == 3 else [f"model.freeze_layers={layers}"]
    settings = [*frozen, "training.num_epochs=3", "training.learning_rate=1e-3"]
    settings = ["model.freeze_backbone=false", *settings]
    made = []
    fill = frozen_features.FrozenFeatures._fill
    monkeypatch.setattr(
        frozen_features.FrozenFeatures, "_fill", lambda self, *a: (made.append(self.depth), fill(self, *a))
    )
    passes = []
    embed = BertEmbeddings.forward
    monkeypatch.setattr(BertEmbeddings, "forward", lambda *a, **k: (passes.append(1), embed(*a, **k))[1])
    fast = trained("fast", *settings)
    assert made == [layers, layers], "once for train, once for dev"
    assert len(passes) == 5, "and dev, the test set and a row again, which the saved model reads"
    assert_alike(fast, trained("slow", *settings, "training.cache_features=false"))
    assert len(made) == 2
    assert_alike(fast, trained("disk", *settings, "training.feature_memory=0"))
    assert len(made) == 3, "dev has the rows of train, and so its key"
    trained("again", *settings, "training.feature_memory=0")
    assert len(made) == 3, "the last run found what the one before it kept"


def test_training_the_occurring_rows_changes_no_result(trained):
    settings = [*ALIKE, "model.freeze_backbone=false", "training.learning_rate=1e-3"]
    assert_alike(trained("rows", *settings), trained("all", *settings, "training.occurring_rows=false"))


def test_fast_dropout_is_off_when_it_is_switched_off(trained, monkeypatch):
    settings = ["training.num_epochs=1", "model.freeze_backbone=false"]
    monkeypatch.setattr("multitask.training.speedups.FastDropout.forward", None)
    trained("plain", *settings, "training.fast_dropout=false")
    with pytest.raises(TypeError):
        trained("fast", *settings)


def test_eager_attention_gives_the_same_model(trained):
    settings = [*ALIKE, "model.freeze_backbone=false", "training.learning_rate=1e-3"]
    assert_alike(trained("sdpa", *settings), trained("eager", *settings, "model.attention=eager"))


def test_bf16_trains_nearly_the_same_model(trained):
    settings = [*ALIKE, "model.freeze_backbone=false", "training.learning_rate=1e-3"]
    (rows, _), (half_rows, half) = (
        trained("fp32", *settings),
        trained("bf16", *settings, "training.precision=bf16"),
    )
    for row, other in zip(rows[:-1], half_rows[:-1]):
        assert row["loss"] == pytest.approx(other["loss"], abs=0.05)
        assert row["loss"] != other["loss"]
    assert all(weight.dtype == torch.float32 for weight in half.values())


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty"])
def test_two_processes_with_half_the_batch_train_the_same_model(trained, settings_for, tmp_path, weighting):
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
    alone = trained("alone", *settings, "training.batch_size=8")
    assert_alike(alone, result(tmp_path / "both"))
    assert ended.stdout.count("Epoch 1/3") == 1, "one process speaks"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("both")] == ["both"]


def test_a_process_without_rows_in_a_step_takes_part(trained, settings_for, tmp_path):
    # of seven rows in steps of six, the second step has one
    settings = [*ALIKE, "model.freeze_backbone=false", "training.learning_rate=1e-3"]
    # learned weights see how many passes a step has: each counts its share of what is not a task's loss
    settings += ["training.loss_weighting=uncertainty", "training.head_learning_rate=1e-2"]
    rows = (tmp_path / "rows.jsonl").read_text().splitlines()
    (tmp_path / "seven.jsonl").write_text("\n".join(rows[:7]) + "\n")
    settings += [f"data.train={tmp_path / 'seven.jsonl'}"]
    together(tmp_path, TASK_4, *settings_for, *settings, "training.batch_size=3", "output_dir=both")
    assert_alike(trained("alone", *settings, "training.batch_size=6"), result(tmp_path / "both"))


def test_of_two_processes_one_says_what_is_wrong(settings_for, tmp_path):
    words = [*settings_for, "data.train=nowhere.jsonl"]
    ended = subprocess.run(
        launch(TASK_4, *words), cwd=tmp_path, capture_output=True, text=True, env=ONE_THREAD
    )
    assert ended.returncode == 1  # the launcher's, which reports what its processes end with
    assert ended.stderr.count("error: ") == ended.stderr.count("error: nowhere.jsonl: no such file") == 1
    assert re.findall(r"exitcode +: (-?\d+)", ended.stderr)[-1] == "2", "of the first one to end"
    assert "RuntimeError" not in ended.stderr and "terminate called" not in ended.stderr


def test_files_are_mixed_at_a_temperature(trained, rows, write_rows, tmp_path, monkeypatch):
    words_only = [{"tokens": ["the", "chip"], "tags": ["O", "O"]}]
    large, small = write_rows("large.jsonl", rows * 5), write_rows("small.jsonl", words_only * 2)
    drawn = []
    step = task_4.train_step
    monkeypatch.setattr(
        task_4, "train_step", lambda trainer, windows: (drawn.extend(windows), step(trainer, windows))
    )
    settings = [f"data.train=[{large},{small}]", "training.num_epochs=2", "training.batch_size=6"]
    trained("even", *settings, "data.sampling_temperature=1")
    assert sorted(drawn[:42]) == sorted(drawn[42:]) == list(range(42))
    drawn.clear()
    trained("mixed", *settings, "data.sampling_temperature=1e9")
    assert [sum(window >= 40 for window in epoch) for epoch in (drawn[:42], drawn[42:])] == [21, 21]


def test_what_is_asked_for_is_logged(trained):
    settings = ["model.freeze_backbone=false", "training.num_epochs=3", "training.gradient_cosine=true"]
    rows, _ = trained("run", *settings, "training.loss_weighting=dwa")
    cosines = [row["gradient_cosine"] for row in rows[:-1]]
    assert all(-1 <= cosine <= 1 for cosine in cosines) and len(set(cosines)) == 3
    weights = [row["loss_weights"] for row in rows[:-1]]
    assert weights[:2] == [{"task_a": 1.0, "task_b": 1.0}] * 2
    first, second = rows[0], rows[1]
    ratios = {task: second[f"loss_{task}"] / first[f"loss_{task}"] for task in ("task_a", "task_b")}
    powers = {task: math.exp(ratio / 2) for task, ratio in ratios.items()}
    expected = {task: 2 * power / sum(powers.values()) for task, power in powers.items()}
    assert weights[2] == pytest.approx(expected, abs=1e-4)
    loss = sum(weights[2][task] * rows[2][f"loss_{task}"] for task in expected)
    assert rows[2]["loss"] == pytest.approx(loss)


def test_adapters_are_trained_and_merged_into_what_is_saved(trained, tiny):
    settings = ["model.freeze_backbone=false", "training.learning_rate=1e-2", "model.lora.rank=2"]
    _, weights = trained("run", *settings, "training.num_epochs=2")
    start = load_file(tiny / "model.safetensors")
    moved = {
        name.removeprefix("bert.")
        for name, weight in weights.items()
        if name.startswith("bert.") and not torch.equal(weight, start[name.removeprefix("bert.")])
    }
    layers = [f"encoder.layer.{i}.attention.self" for i in range(3)]
    assert moved == {f"{layer}.{part}.weight" for layer in layers for part in ("query", "value")}


def scarce(monkeypatch, largest, error, spared=0):
    """Let passes in training fail that have more than `largest` rows, as where memory is short; the first
    ones are `spared`."""
    real, sizes = MultiTaskTransformer.forward, []

    def forward(self, input_ids=None, attention_mask=None, hidden=None, depth=0):
        output = real(self, input_ids, attention_mask, hidden, depth)
        if self.training and len(attention_mask) > largest and len(sizes) >= spared:
            raise error
        sizes.append(len(attention_mask))
        return output

    monkeypatch.setattr(MultiTaskTransformer, "forward", forward)
    return sizes


CPU_ERROR = RuntimeError(
    "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), CPU_ERROR])
@pytest.mark.parametrize("spared", [0, 1])
def test_where_memory_is_short_the_step_stays_the_same_in_smaller_parts(
    trained, shell, settings_for, monkeypatch, tmp_path, error, spared
):
    settings = [*ALIKE, "model.freeze_backbone=false", "training.learning_rate=1e-3"]
    settings += ["training.gradient_cosine=true"]
    small = trained("small", *settings, "training.batch_size=2", "training.gradient_accumulation=4")
    # one of the two passes of the first step may be done when memory runs out
    sizes = scarce(monkeypatch, 3, error, spared)
    large = ["training.batch_size=4", "training.gradient_accumulation=2", "output_dir=large"]
    ended = shell(task_4, *settings_for, *settings, *large)
    assert ended.status == 0
    message = (
        "step 1: out of memory with micro-batches of 4; continuing with 2, and with as many rows per step"
    )
    assert ended.err.count("out of memory") == 1 and message in ended.err
    assert max(sizes[spared:]) <= 3
    rows, weights = result(tmp_path / "large")
    assert rows == small[0]
    assert all(torch.equal(weight, small[1][name]) for name, weight in weights.items())


def test_a_run_that_goes_on_knows_what_fits(shell, settings_for, monkeypatch):
    real = task_4.gradients

    def gradients(*arguments):
        real(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    scarce(monkeypatch, 3, CPU_ERROR)
    monkeypatch.setattr(task_4, "gradients", gradients)
    assert "out of memory" in shell(task_4, *settings_for).err
    monkeypatch.setattr(task_4, "gradients", real)
    ended = shell(task_4, "--resume", "run")
    assert (ended.status, ended.err) == (0, "")


def test_the_rows_of_a_step_that_is_not_taken_are_those_of_its_batch(shell, settings_for, monkeypatch):
    real, steps = task_4.train_step, []

    def train_step(trainer, windows):
        steps.append(trainer.corpus.row_lines[trainer.corpus.row_of_window[windows]].tolist())
        real(trainer, windows)

    monkeypatch.setattr(task_4, "train_step", train_step)
    monkeypatch.setattr(task_4, "finite_or_nan", lambda loss: loss * (math.nan if len(steps) == 5 else 1))
    ended = shell(task_4, *settings_for, "training.num_epochs=3", "training.batch_size=3")
    assert ended.status == 2
    lines = re.search(r"error: step 5: .* Rows of this step: \S+rows.jsonl:(.*)\n", ended.err)[1]
    assert lines == ", ".join(map(str, sorted(steps[4])))
    assert sorted(steps[1]) != sorted(steps[4]), "or they would not tell the epochs apart"


def test_where_not_even_one_row_fits_the_run_ends_with_its_place(shell, settings_for, monkeypatch, tmp_path):
    scarce(monkeypatch, 0, CPU_ERROR)
    ended = shell(task_4, *settings_for)
    assert ended.status == 2
    assert re.search(
        r"error: step 1: out of memory with micro-batches of 1: .* Rows of this step: \S+rows.jsonl:\d",
        ended.err,
    )


def test_an_error_that_is_none_of_memory_is_not_tried_again(shell, settings_for, monkeypatch):
    sizes = scarce(monkeypatch, 1, RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        shell(task_4, *settings_for)
    assert sizes == []


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
