import math

import pytest
import torch

from model import MultiTaskTransformer
from multitask.config.schema import LossWeights, TrainingSettings
from multitask.training.loss_weighting import LossWeighting, gradient_cosine
from multitask.training.optimizer import make_optimizer

BOTH = ("task_a", "task_b")


def weighting(rule: str, tasks=BOTH, **fields) -> LossWeighting:
    return LossWeighting(TrainingSettings(loss_weighting=rule, **fields), tasks)


def losses(a: float, b: float) -> dict[str, torch.Tensor]:
    return {"task_a": torch.tensor(a, requires_grad=True), "task_b": torch.tensor(b, requires_grad=True)}


def test_fixed_weights_come_from_the_settings():
    fixed = weighting("fixed", loss_weights=LossWeights(task_a=0.3, task_b=1.7))
    parts = losses(1.1, 0.7)
    total = fixed(parts, share=0.25)
    assert torch.equal(total, sum([0.3 * parts["task_a"], 1.7 * parts["task_b"]]))
    assert fixed.weights() == {"task_a": 0.3, "task_b": 1.7}
    assert not list(fixed.parameters())


def test_uncertainty_weighting_is_the_likelihood_of_the_paper():
    learned = weighting("uncertainty")
    parts = losses(1.1, 0.7)
    assert torch.equal(learned(parts), sum(parts.values())), "from s = 0 on"
    s = [0.4, -0.9]
    with torch.no_grad():
        learned.log_variances.copy_(torch.tensor(s))
    total = learned(parts)
    sigmas = [math.exp(value / 2) for value in s]
    by_hand = sum(loss / sigma**2 + math.log(sigma) for loss, sigma in zip((1.1, 0.7), sigmas))
    assert total.item() == pytest.approx(by_hand)
    total.backward()
    gradient = [-math.exp(-value) * loss + 0.5 for value, loss in zip(s, (1.1, 0.7))]
    assert learned.log_variances.grad.tolist() == pytest.approx(gradient)
    assert parts["task_b"].grad.item() == pytest.approx(math.exp(0.9))
    assert learned.weights() == pytest.approx({"task_a": math.exp(-0.4), "task_b": math.exp(0.9)})


def test_learned_weights_converge_to_equal_shares(tiny):
    # the minimum of exp(-s) L + s / 2 is at exp(-s) = 1 / (2 L)
    model = MultiTaskTransformer.from_pretrained(tiny, num_classes_task_a=2, num_labels_task_b=3)
    learned = weighting("uncertainty")
    settings = TrainingSettings(head_learning_rate=0.05, warmup=0)
    optimizer, schedule = make_optimizer(model, settings, 200, learned.parameters())
    for _ in range(200):
        learned(losses(2.0, 0.25)).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    assert learned.weights() == pytest.approx({"task_a": 0.25, "task_b": 2.0}, rel=0.02)


@pytest.mark.parametrize("rule", ["fixed", "uncertainty", "dwa"])
def test_the_parts_of_a_step_add_up_to_the_whole(rule):
    def gradients(parts, share):
        w = weighting(rule)
        w.end_epoch({"task_a": 2.0, "task_b": 1.0})
        w.end_epoch({"task_a": 1.0, "task_b": 0.9})
        if rule == "uncertainty":
            with torch.no_grad():
                w.log_variances.copy_(torch.tensor([0.4, -0.9]))
        x = torch.tensor([1.5, -0.5], requires_grad=True)
        for a, b in parts:
            w({"task_a": a * x[0].square(), "task_b": b * (x[0] * x[1]).square()}, share).backward()
        return torch.cat([x.grad, *(p.grad for p in w.parameters())])

    torch.testing.assert_close(
        gradients([(0.1, 0.0), (0.6, 0.3), (0.3, 0.7)], 1 / 3), gradients([(1.0, 1.0)], 1.0)
    )


def test_dwa_follows_the_formula_of_the_paper():
    dwa = weighting("dwa", dwa_temperature=0.5)
    means = [(4.0, 1.0), (2.0, 0.9), (1.5, 0.1), (1.0, 0.08)]
    for epoch, (a, b) in enumerate(means):
        ratios = (1, 1) if epoch < 2 else [new / old for new, old in zip(means[epoch - 1], means[epoch - 2])]
        powers = [math.exp(ratio / 0.5) for ratio in ratios]
        expected = {task: 2 * power / sum(powers) for task, power in zip(BOTH, powers)}
        assert dwa.weights() == pytest.approx(expected), epoch
        parts = losses(0.3, 0.4)
        total = dwa(parts)
        assert total.item() == pytest.approx(0.3 * expected["task_a"] + 0.4 * expected["task_b"])
        dwa.end_epoch({"task_a": a, "task_b": b})
    resumed = weighting("dwa", dwa_temperature=0.5)
    resumed.load_state_dict(dwa.state_dict())
    assert resumed.weights() == dwa.weights()


def test_a_loss_of_0_leaves_the_weights_finite():
    dwa = weighting("dwa")
    for means in ({"task_a": 0.0, "task_b": 1.0}, {"task_a": 0.0, "task_b": 1.0}):
        dwa.end_epoch(means)
    assert dwa.weights() == {"task_a": 1.0, "task_b": 1.0}


@pytest.mark.parametrize("rule", ["fixed", "uncertainty", "dwa"])
def test_a_single_task_has_its_plain_loss(rule):
    alone = weighting(rule, ("task_b",))
    alone.end_epoch({"task_b": 3.0})
    alone.end_epoch({"task_b": 1.0})
    assert alone({"task_b": torch.tensor(0.7)}).item() == pytest.approx(0.7, rel=1e-7)
    assert alone.weights() == {"task_b": 1.0}
    assert not list(alone.parameters())


@pytest.fixture
def two_losses():
    """Losses of three tensors: the first loss uses two of them, the second another two."""
    torch.manual_seed(0)
    x, y, z = (torch.randn(n, requires_grad=True) for n in (3, 4, 2))
    return {"task_a": (x.exp().sum() * y.sum()).tanh(), "task_b": (y.sin().sum() * z.sum())}, [x, y, z]


def test_the_cosine_of_both_gradients_changes_no_gradient(two_losses):
    parts, parameters = two_losses
    cosine = gradient_cosine(parts, parameters)
    assert all(p.grad is None for p in parameters)
    flat = []
    for loss in parts.values():
        loss.backward(retain_graph=True)
        flat.append([g for p in parameters for g in (p.grad if p.grad is not None else 0 * p).tolist()])
        for p in parameters:
            p.grad = None
    dot, a, b = (sum(x * y for x, y in zip(*pair)) for pair in (flat, flat[:1] * 2, flat[1:] * 2))
    assert cosine.shape == ()
    assert cosine.item() == pytest.approx(dot / math.sqrt(a * b))
    assert abs(dot / math.sqrt(a * b)) > 0.01, "the example has something to find"


def test_cosines_of_equal_opposite_and_missing_gradients(two_losses):
    parts, parameters = two_losses
    loss = parts["task_a"]
    assert gradient_cosine({"task_a": loss, "task_b": 3 * loss}, parameters).item() == pytest.approx(1)
    assert gradient_cosine({"task_a": loss, "task_b": -loss}, parameters).item() == pytest.approx(-1)
    assert gradient_cosine({"task_a": loss, "task_b": 0 * loss}, parameters).item() == 0
    other = torch.ones((), requires_grad=True)
    assert gradient_cosine({"task_a": loss, "task_b": 2 * other}, parameters).item() == 0


def test_the_cosine_is_the_same_with_recomputed_activations(tiny):
    torch.manual_seed(1)
    model = MultiTaskTransformer.from_pretrained(tiny, num_classes_task_a=2, num_labels_task_b=3).train()
    input_ids = torch.randint(5, 90, (4, 9))
    shared = list(model.bert.parameters())

    def step() -> list[torch.Tensor]:
        torch.manual_seed(2)
        model.zero_grad()
        parts = dict(zip(BOTH, (logits.square().sum() for logits in model(input_ids))))
        cosine = gradient_cosine(parts, shared)
        sum(parts.values()).backward()
        return [cosine, *(p.grad.clone() for p in shared)]

    stored = step()
    model.recompute_activations()
    for a, b in zip(stored, step()):
        torch.testing.assert_close(a, b)
