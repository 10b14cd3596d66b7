"""The loss of a student, against sums that are written out."""

import math

import pytest
import torch

from model import MultiTaskOutput
from multitask.distillation.loss import soft_loss

B, T, C, K = 3, 4, 3, 5


def random_parts():
    torch.manual_seed(5)
    output = MultiTaskOutput(torch.randn(B, C, requires_grad=True), torch.randn(B, T, K, requires_grad=True))
    of_texts, of_words = torch.randn(B, C).softmax(-1), torch.randn(B, T, K).softmax(-1)
    of_texts[1] = 0  # no soft target
    of_words[2, 2:] = 0
    of_words[0, 0] = torch.tensor([0, 1, 0, 0, 0])  # certain
    return output, of_texts, of_words, torch.tensor([1.0, 1.0, 0.5])


def divergence(logits: list[float], probabilities: list[float], temperature: float) -> float:
    powers = [math.exp(logit / temperature) for logit in logits]
    return sum(p * math.log(p / (q / sum(powers))) for p, q in zip(probabilities, powers) if p > 0)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_loss_is_the_divergence_times_the_squared_temperature(temperature):
    output, of_texts, of_words, shares = random_parts()
    a, b = soft_loss(output, (of_texts, of_words), (2.5, 10.0), shares, temperature)
    texts = zip(output[0].tolist(), of_texts.tolist(), shares.tolist())
    words = zip(output[1].flatten(0, 1).tolist(), of_words.flatten(0, 1).tolist())
    by_hand_a = sum(weight * divergence(logits, p, temperature) for logits, p, weight in texts)
    by_hand_b = sum(divergence(logits, p, temperature) for logits, p in words)
    assert a.item() == pytest.approx(temperature**2 * by_hand_a / 2.5, rel=1e-5)
    assert b.item() == pytest.approx(temperature**2 * by_hand_b / 10, rel=1e-5)


def test_an_item_without_a_soft_target_adds_exactly_nothing():
    output, of_texts, of_words, shares = random_parts()
    losses = soft_loss(output, (of_texts, of_words), (2, 8), shares, 2.0)
    sum(losses).backward()
    assert not output[0].grad[1].any() and not output[1].grad[2, 2:].any()
    assert output[0].grad[0].any() and output[1].grad[2, :2].any()
    nothing = soft_loss(output, (of_texts * 0, of_words * 0), (0, 0), shares, 2.0)
    assert [loss.item() for loss in nothing] == [0, 0]


def test_a_student_that_says_what_its_teacher_says_has_no_loss():
    output, *_, shares = random_parts()
    same = tuple((logits.detach() / 3).softmax(-1) for logits in output)
    losses = soft_loss(output, same, (1, 1), shares, 3.0)
    assert [loss.item() for loss in losses] == pytest.approx([0, 0], abs=1e-5)
    assert soft_loss(output, (None, same[1]), (1, 1), shares, 3.0)[0] is None
