import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from transformers import get_linear_schedule_with_warmup

from model import MultiTaskTransformer
from multitask.config.schema import TrainingSettings
from multitask.training.optimizer import OptimizerStep, finite_or_nan, make_optimizer, parameter_groups

SETTINGS = TrainingSettings(learning_rate=1e-4, head_learning_rate=1e-2, weight_decay=0.1, warmup=0.25)


@pytest.fixture
def model(tiny):
    return MultiTaskTransformer.from_pretrained(tiny, num_classes_task_a=2, num_labels_task_b=3)


def test_every_trainable_parameter_is_in_one_group_with_its_rate_and_decay(model):
    model.freeze(layers=1, task_a=True)
    place = {id(p): group for group in parameter_groups(model, SETTINGS) for p in group["params"]}
    grouped = [id(p) for group in parameter_groups(model, SETTINGS) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    for name, module in model.named_modules():
        for kind, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                group = place[id(parameter)]
                assert group["lr"] == (1e-2 if name == "classifier" else 1e-4), name
                decays = isinstance(module, nn.Linear) and kind == "weight"
                assert group["weight_decay"] == (0.1 if decays else 0), f"{name}.{kind}"


def test_each_layer_learns_more_slowly_than_the_one_above_it(model):
    settings = SETTINGS.model_copy(update={"layer_decay": 0.5})
    rates = {id(p): group["lr"] for group in parameter_groups(model, settings) for p in group["params"]}
    by_hand = {
        "bert.encoder.layer.2.": 1e-4,
        "bert.encoder.layer.1.": 5e-5,
        "bert.encoder.layer.0.": 2.5e-5,
        "bert.embeddings.": 1.25e-5,
        "classifier.": 1e-2,
        "sentence_classifier.": 1e-2,
    }
    for name, parameter in model.named_parameters():
        rate = next(rate for prefix, rate in by_hand.items() if name.startswith(prefix))
        assert rates[id(parameter)] == pytest.approx(rate), name


def test_without_layer_decay_there_are_two_rates_each_with_and_without_weight_decay(model):
    groups = parameter_groups(model, SETTINGS)
    rates = [(group["lr"], group["weight_decay"]) for group in groups]
    assert rates == [(1e-4, 0), (1e-4, 0.1), (1e-2, 0.1), (1e-2, 0)]
    in_order = [id(p) for group in groups[:2] for p in group["params"]]
    assert sorted(in_order) == sorted(map(id, model.bert.parameters()))


def test_parameters_of_the_loss_learn_at_the_heads_rate_without_decay(model):
    own = nn.Parameter(torch.zeros(2))
    optimizer, _ = make_optimizer(model, SETTINGS.model_copy(update={"warmup": 0}), 8, iter([own]))
    (group,) = (g for g in optimizer.param_groups if any(p is own for p in g["params"]))
    assert (group["lr"], group["weight_decay"], len(group["params"])) == (1e-2, 0, 1)


def test_the_rate_warms_up_and_falls_to_zero(model):
    optimizer, schedule = make_optimizer(model, SETTINGS, steps=8)
    rates = []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"] / 1e-4)
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0, 1 / 2, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert optimizer.param_groups[0]["lr"] == 0


def gradients(model, number, factor=1.0):
    torch.manual_seed(number)
    for parameter in model.parameters():
        parameter.grad = factor * torch.randn(parameter.shape)


@pytest.mark.parametrize("max_norm", [None, 0.5, 50])
def test_an_update_is_clipping_and_a_plain_step(model, max_norm):
    oracle = copy.deepcopy(model)
    update = OptimizerStep(*make_optimizer(model, SETTINGS, 8), max_norm)
    plain = torch.optim.AdamW(parameter_groups(oracle, SETTINGS), foreach=False)
    schedule = get_linear_schedule_with_warmup(plain, 2, 8)
    for number in range(4):
        # some norms are above the limit and some below: Adam ignores a factor that all gradients share
        gradients(model, number, 10.0 ** (number % 2 - 1))
        gradients(oracle, number, 10.0 ** (number % 2 - 1))
        update()
        if max_norm:
            clip_grad_norm_(oracle.parameters(), max_norm)
        plain.step()
        schedule.step()
    assert update.first_skipped_step() == 0
    for (name, moved), expected in zip(model.named_parameters(), oracle.parameters()):
        assert torch.allclose(moved, expected, atol=1e-6), name
        assert moved.grad is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_step_that_is_not_finite_is_skipped_and_reported_later(model, value):
    update = OptimizerStep(*make_optimizer(model, SETTINGS, 8), 1.0)
    for number in range(2):
        gradients(model, number)
        update()
    before = {name: p.clone() for name, p in model.named_parameters()}
    moments = copy.deepcopy(update.optimizer.state_dict()["state"])
    for number in (2, 3):
        gradients(model, number)
        model.classifier.bias.grad[1] = value
        update()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    after = update.optimizer.state_dict()["state"]
    assert all(torch.equal(after[i][k], moments[i][k]) for i in moments for k in moments[i])
    assert update.first_skipped_step() == 3


def test_a_loss_that_is_not_finite_skips_the_step(model):
    update = OptimizerStep(*make_optimizer(model, SETTINGS, 8), 1.0)
    before = {name: p.clone() for name, p in model.named_parameters()}
    weight = model.classifier.weight
    # the loss overflows but its gradient is finite: that of weight.sum() + inf is ones
    finite_or_nan(weight.sum() + math.inf).backward()
    update()
    assert update.first_skipped_step() == 1
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    finite_or_nan(3 * weight.sum()).backward()
    assert torch.equal(weight.grad, torch.full_like(weight, 3))
