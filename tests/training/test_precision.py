"""Training in float16 and on devices without a fused optimizer."""

import copy

import pytest
import torch
from alike import ALIKE
from transformers import get_linear_schedule_with_warmup

from model import MultiTaskTransformer
from multitask.config.schema import TrainingSettings
from multitask.training.optimizer import LossScale, OptimizerStep, make_optimizer, parameter_groups

SETTINGS = TrainingSettings(learning_rate=1e-3, head_learning_rate=1e-2, weight_decay=0.1, warmup=0.25)
CPU = torch.device("cpu")


@pytest.fixture
def two_models(tiny):
    model = MultiTaskTransformer.from_pretrained(tiny, num_classes_task_a=2, num_labels_task_b=3)
    return model, copy.deepcopy(model)


def gradients(model, number, factor=1.0):
    torch.manual_seed(number)
    for parameter in model.parameters():
        parameter.grad = factor * torch.randn(parameter.shape)


def assert_equal(model, other, tolerance=0.0):
    for (name, parameter), expected in zip(model.named_parameters(), other.parameters()):
        torch.testing.assert_close(parameter, expected, rtol=0, atol=tolerance, msg=name)


def test_the_loss_scale_is_that_of_torch(monkeypatch):
    monkeypatch.setattr(LossScale, "GROW_AFTER", 3)
    ours, weight = LossScale(CPU), torch.nn.Parameter(torch.ones(1))
    scaler = torch.amp.GradScaler("cpu", init_scale=LossScale.FIRST, growth_interval=3)
    optimizer = torch.optim.SGD([weight], 0.1)
    for overflow in map(int, "0000100011000000001"):
        scaler.scale(torch.ones(1))  # creates its tensors
        weight.grad = torch.full((1,), torch.inf if overflow else 1.0)
        scaler.step(optimizer)
        scaler.update()
        ours.update(torch.tensor(bool(overflow)))
        assert float(ours.factor) == scaler.get_scale()
    assert float(ours.overflows) == 4


def test_the_loss_scale_stays_within_its_limits(monkeypatch):
    monkeypatch.setattr(LossScale, "GROW_AFTER", 1)
    scale = LossScale(CPU)
    for _ in range(30):
        scale.update(torch.tensor(False))
    assert float(scale.factor) == LossScale.LARGEST
    for _ in range(30):
        assert not scale.exhausted
        scale.update(torch.tensor(True))
        if float(scale.factor) == 1:
            break
    assert scale.exhausted


@pytest.mark.parametrize("max_norm", [None, 0.5, 1e4])
def test_scaled_gradients_give_the_same_step(two_models, max_norm):
    model, plain = two_models
    scaled = OptimizerStep(*make_optimizer(model, SETTINGS, 8), max_norm, LossScale(CPU))
    update = OptimizerStep(*make_optimizer(plain, SETTINGS, 8), max_norm)
    for number in range(4):
        gradients(model, number, float(scaled.loss_scale.factor))
        gradients(plain, number)
        scaled()
        update()
    assert_equal(model, plain, 1e-6)


def test_an_overflow_changes_no_weight_and_fails_only_without_a_scale_to_halve(two_models):
    model, before = two_models
    update = OptimizerStep(*make_optimizer(model, SETTINGS, 8), 1.0, LossScale(CPU))
    for number in range(16):
        gradients(model, number, torch.inf)
        update()
    assert float(update.loss_scale.factor) == 1
    assert update.first_skipped_step() == 0
    gradients(model, 17, torch.nan)
    update()
    assert update.first_skipped_step() == 17
    assert_equal(model, before)


@pytest.mark.parametrize("scaled", [False, True])
def test_an_optimizer_that_is_not_fused_takes_the_same_steps(two_models, scaled):
    model, other = two_models
    update = OptimizerStep(*make_optimizer(model, SETTINGS, 8), 0.5, LossScale(CPU) if scaled else None)
    unfused = torch.optim.AdamW(parameter_groups(other, SETTINGS), fused=False)
    schedule = get_linear_schedule_with_warmup(unfused, 2, 8)
    plain = OptimizerStep(unfused, schedule, 0.5, LossScale(CPU) if scaled else None)
    for number in range(5):
        for one in (model, other):
            gradients(one, number, torch.inf if number == 2 else 1.0)
        update()
        plain()
    assert update.first_skipped_step() == plain.first_skipped_step() == (0 if scaled else 3)
    assert_equal(model, other, 1e-6)


def test_float16_trains_nearly_the_model_of_float32(train_run):
    settings = [*ALIKE, "model.freeze_backbone=false", "training.learning_rate=1e-3"]
    settings += ["training.loss_weights.task_b=1"]  # else the first step of few overflows, and is skipped
    (rows, weights), (others, expected) = (
        train_run(name, *settings, f"training.precision={name}") for name in ("fp16", "fp32")
    )
    for row, other in zip(rows[:-1], others):
        assert row["loss"] == pytest.approx(other["loss"], rel=0.05)
        assert row["loss_scale"] == 2.0**16 / 2 ** row["overflows"]
    names = [name for name in weights if not name.endswith("key.bias")]  # theirs is rounding error
    first, second = (torch.cat([each[name].ravel() for name in names]) for each in (weights, expected))
    assert 0 < (first - second).norm() / second.norm() < 0.05
