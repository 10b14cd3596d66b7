"""A run whose memory is too small continues with smaller micro-batches."""

import os
import re
import signal

import pytest
import torch
from alike import ALIKE, result

import task_4
from model import MultiTaskTransformer


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
def test_smaller_micro_batches_give_the_same_step(
    train_run, shell, settings_for, monkeypatch, tmp_path, error, spared
):
    settings = [*ALIKE, "model.freeze_backbone=false", "training.learning_rate=1e-3"]
    settings += ["training.gradient_cosine=true"]
    small = train_run("small", *settings, "training.batch_size=2", "training.gradient_accumulation=4")
    # memory may run out in the second pass of the first step
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


def test_a_resumed_run_remembers_the_micro_batch_size(shell, settings_for, monkeypatch):
    real = task_4.gradients

    def gradients(*arguments):
        real(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    scarce(monkeypatch, 3, CPU_ERROR)
    monkeypatch.setattr(task_4, "gradients", gradients)
    assert "out of memory" in shell(task_4, *settings_for).err
    monkeypatch.setattr(task_4, "gradients", real)
    ended = shell(task_4, "--resume", "run")
    assert ended.status == 0 and "out of memory" not in ended.err


def test_a_row_that_does_not_fit_is_named(shell, settings_for, monkeypatch, tmp_path):
    scarce(monkeypatch, 0, CPU_ERROR)
    ended = shell(task_4, *settings_for)
    assert ended.status == 2
    assert re.search(
        r"error: step 1: out of memory with micro-batches of 1: .* Rows of this step: \S+rows.jsonl:\d",
        ended.err,
    )


def test_other_errors_are_not_retried(shell, settings_for, monkeypatch):
    sizes = scarce(monkeypatch, 1, RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        shell(task_4, *settings_for)
    assert sizes == []
