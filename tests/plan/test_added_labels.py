"""The rows that a kept head gets for new classes are fitted to train before the first step."""

import signal

import numpy as np
import pytest
import torch
from alike import ALIKE, assert_alike, result
from task_4_runs import trained

import task_4
from multitask.config.loading import load_settings
from multitask.config.schema import Settings
from multitask.inference.torch_runner import TorchRunner
from multitask.training.preparation import prepare
from multitask.training.trainer import Trainer

LONG = ["chip", "anna"] * 30  # several windows
RIDGE = 0.3
KNOWN = 2  # classes of the starting model


@pytest.fixture
def more(shell, settings_for, rows, write_rows):
    """Overrides of a run on a starting model that gets a class and a type besides its own."""
    free = ["model.num_classes_task_a=null", "model.num_labels_task_b=null"]
    trained(shell, [*settings_for, *free], "output_dir=first")
    short = {"tokens": ["chip", "anna"], "tags": ["B-ACT", "B-PER"], "label": "chips"}
    long = {"tokens": LONG, "tags": ["B-ACT", "B-PER"] * 30, "label": "chips"}
    file = write_rows("more.jsonl", [*rows, short, {"tokens": ["vote"], "label": None}, long, short])
    return [*settings_for, *free, f"data.train={file}", "data.test=null", "model.backbone=first/model"]


def begun(overrides: list[str]) -> Trainer:
    """A run of these overrides just before its first step."""
    config, *rest = overrides
    settings: Settings = load_settings(config.removeprefix("--config="), rest)
    prepared = prepare(settings)
    trainer = Trainer(task_4.build(prepared, settings), prepared, settings)
    task_4.prepare_steps(trainer)
    return trainer


def gradients(layer, known: int, x: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The gradient of the penalised loss by the new rows, for x (n, D) of mean square norm 1: each row's
    weights, then its bias."""
    w, b = (tensor.detach().double().numpy() for tensor in (layer.weight, layer.bias))
    logits = x @ w.T + b
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    errors = (probabilities - np.eye(len(b))[labels])[:, known:] * weights[:, None]  # (n, new)
    scale = np.sqrt((x**2).sum(1).mean())
    return np.c_[errors.T @ x / scale + RIDGE * w[known:] * scale, errors.sum(0)]


@pytest.mark.parametrize("frozen", ["true", "false"])
@pytest.mark.parametrize("weights", ["null", "balanced"])
def test_new_rows_are_the_minimum_of_a_penalised_regression(more, frozen, weights):
    trainer = begun([*more, f"model.freeze_backbone={frozen}", f"training.class_weights={weights}"])
    model, corpus = trainer.model, trainer.corpus
    rows = corpus.row_of_window
    windows = np.flatnonzero(corpus.row_classes[rows] >= 0)
    assert np.bincount(rows).max() > 1, "no text has several windows"
    model.eval()
    x, labels = TorchRunner(model)(corpus, windows).embeddings, corpus.row_classes[rows[windows]]
    factors = 1 / np.bincount(rows)[rows[windows]]
    if weights == "balanced":
        factors = factors * trainer.prepared.class_weights["task_a"][labels]
    found = gradients(model.sentence_classifier, KNOWN, x.astype(float), labels, factors)
    assert np.abs(found).max() < 1e-3, found


def test_only_the_new_rows_change(more):
    config, *rest = more
    settings: Settings = load_settings(config.removeprefix("--config="), rest)
    before = task_4.build(prepare(settings), settings).state_dict()
    after = begun(more).model.state_dict()
    for name, weight in after.items():
        known = KNOWN if name.startswith("sentence_classifier") else len(weight)
        assert torch.equal(weight[:known], before[name][:known]), name
        assert known == len(weight) or not torch.equal(weight[known:], before[name][known:]), name


def test_rows_of_bfloat16_passes_are_close(more):
    exact, rounded = (
        begun([*more, f"training.precision={name}"]).model.sentence_classifier.weight.detach()
        for name in ("fp32", "bf16")
    )
    assert torch.allclose(exact, rounded, atol=0.05 * float(exact.abs().max()))


def test_two_processes_begin_with_the_same_rows(shell, more, runs, tmp_path):
    settings = [*more, *ALIKE, "model.freeze_backbone=false", "training.learning_rate=1e-3"]
    both = runs(tmp_path, *settings, "training.batch_size=4", "output_dir=both", processes=2)
    assert both.status == 0, both.err
    trained(shell, settings, "training.batch_size=8", "output_dir=alone")
    assert_alike(result("alone"), result("both"))


def test_a_resumed_run_does_not_fit_them_again(shell, more, runs, tmp_path):
    settings = [*more, "training.num_epochs=2", "training.checkpoint_every=1"]
    trained(shell, settings, "output_dir=whole")
    stopped = runs(tmp_path, *settings, "output_dir=stopped", at_step={3: [signal.SIGTERM]})
    assert stopped.status == 128 + signal.SIGTERM, stopped.err
    resumed = runs(tmp_path, "--resume", "stopped")
    assert resumed.status == 0, resumed.err
    (rows, whole), (other_rows, other) = result("whole"), result("stopped")
    assert rows == other_rows
    assert all(torch.equal(weight, other[name]) for name, weight in whole.items())
