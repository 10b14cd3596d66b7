"""Compare the results of two runs of task_4.py."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import task_4

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
def train_run(shell, settings_for, tmp_path):
    def train(name, *overrides):
        ended = shell(task_4, *settings_for, f"output_dir={name}", *overrides)
        assert ended.status == 0, ended.err
        return result(tmp_path / name)

    return train
