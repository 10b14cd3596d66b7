"""Settings that make training faster do not change its result, and others do what they say."""

import math
import re

import pytest
import torch
from alike import ALIKE, assert_alike
from safetensors.torch import load_file
from transformers.models.bert.modeling_bert import BertEmbeddings

import task_4
from multitask.speedups import frozen_features


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_features_computed_once_train_the_same_model(train_run, layers, monkeypatch):
    frozen = ["model.freeze_backbone=true"] if layers == 3 else [f"model.freeze_layers={layers}"]
    settings = [*frozen, "training.num_epochs=3", "training.learning_rate=1e-3"]
    settings = ["model.freeze_backbone=false", *settings]
    made = []
    fill = frozen_features.FrozenFeatures.fill
    monkeypatch.setattr(
        frozen_features.FrozenFeatures, "fill", lambda self, *a: (made.append(self.depth), fill(self, *a))
    )
    passes = []
    embed = BertEmbeddings.forward
    monkeypatch.setattr(BertEmbeddings, "forward", lambda *a, **k: (passes.append(1), embed(*a, **k))[1])
    fast = train_run("fast", *settings)
    assert made == [layers, layers], "once for train, once for dev"
    assert len(passes) == 5, "and dev twice (temperatures, thresholds) and test, which the saved model reads"
    assert_alike(fast, train_run("slow", *settings, "training.cache_features=false"))
    assert len(made) == 2
    assert_alike(fast, train_run("disk", *settings, "training.feature_memory=0"))
    assert len(made) == 3, "dev has the rows of train, and so its key"
    train_run("again", *settings, "training.feature_memory=0")
    assert len(made) == 3, "the last run found what the one before it kept"


def test_training_the_occurring_rows_changes_no_result(train_run):
    settings = [*ALIKE, "model.freeze_backbone=false", "training.learning_rate=1e-3"]
    assert_alike(train_run("rows", *settings), train_run("all", *settings, "training.occurring_rows=false"))


def test_fast_dropout_is_off_when_it_is_switched_off(train_run, monkeypatch):
    settings = ["training.num_epochs=1", "model.freeze_backbone=false"]
    monkeypatch.setattr("multitask.speedups.modules.FastDropout.forward", None)
    train_run("plain", *settings, "training.fast_dropout=false")
    with pytest.raises(TypeError):
        train_run("fast", *settings)


def test_eager_attention_gives_the_same_model(train_run):
    settings = [*ALIKE, "model.freeze_backbone=false", "training.learning_rate=1e-3"]
    assert_alike(train_run("sdpa", *settings), train_run("eager", *settings, "model.attention=eager"))


def test_bf16_trains_nearly_the_same_model(train_run):
    settings = [*ALIKE, "model.freeze_backbone=false", "training.learning_rate=1e-3"]
    (rows, _), (half_rows, half) = (
        train_run("fp32", *settings),
        train_run("bf16", *settings, "training.precision=bf16"),
    )
    for row, other in zip(rows[:-1], half_rows[:-1]):
        assert row["loss"] == pytest.approx(other["loss"], abs=0.05)
        assert row["loss"] != other["loss"]
    assert all(weight.dtype == torch.float32 for weight in half.values())


def test_files_are_mixed_at_a_temperature(train_run, rows, write_rows, tmp_path, monkeypatch):
    words_only = [{"tokens": ["the", "chip"], "tags": ["O", "O"]}]
    large, small = write_rows("large.jsonl", rows * 5), write_rows("small.jsonl", words_only * 2)
    drawn = []
    step = task_4.train_step
    monkeypatch.setattr(
        task_4, "train_step", lambda trainer, windows: (drawn.extend(windows), step(trainer, windows))
    )
    settings = [f"data.train=[{large},{small}]", "training.num_epochs=2", "training.batch_size=6"]
    train_run("even", *settings, "data.sampling_temperature=1")
    assert sorted(drawn[:42]) == sorted(drawn[42:]) == list(range(42))
    drawn.clear()
    train_run("mixed", *settings, "data.sampling_temperature=1e9")
    assert [sum(window >= 40 for window in epoch) for epoch in (drawn[:42], drawn[42:])] == [21, 21]


def test_what_is_asked_for_is_logged(train_run):
    settings = ["model.freeze_backbone=false", "training.num_epochs=3", "training.gradient_cosine=true"]
    rows, _ = train_run("run", *settings, "training.loss_weighting=dwa")
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


def test_adapters_are_trained_and_merged_into_what_is_saved(train_run, tiny):
    settings = ["model.freeze_backbone=false", "training.learning_rate=1e-2", "model.lora.rank=2"]
    _, weights = train_run("run", *settings, "training.num_epochs=2")
    start = load_file(tiny / "model.safetensors")
    moved = {
        name.removeprefix("bert.")
        for name, weight in weights.items()
        if name.startswith("bert.") and not torch.equal(weight, start[name.removeprefix("bert.")])
    }
    layers = [f"encoder.layer.{i}.attention.self" for i in range(3)]
    assert moved == {f"{layer}.{part}.weight" for layer in layers for part in ("query", "value")}


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
