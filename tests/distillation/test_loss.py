"""The loss of a student, against sums that are written out."""

import math
from itertools import pairwise, product

import numpy as np
import pytest
import torch

from model import MultiTaskOutput
from multitask.distillation.loss import soft_loss
from multitask.encoders.tag_chain import log_marginals

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


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_a_crf_is_compared_by_the_probabilities_of_all_chains(temperature):
    output, of_texts, of_words, shares = random_parts()
    transitions = torch.randn(K, K, generator=torch.Generator().manual_seed(1), requires_grad=True)
    _, loss = soft_loss(output, (of_texts, of_words), (1, 10), shares, temperature, transitions)
    by_hand = 0.0
    for scores, soft in zip(output[1].tolist(), of_words.tolist()):
        words = [(scores[t], soft[t]) for t in range(T) if sum(soft[t])]
        powers = [[0.0] * K for _ in words]
        for chain in product(range(K), repeat=len(words)):
            score = sum(of_word[tag] for (of_word, _), tag in zip(words, chain))
            score += sum(transitions[pair].item() for pair in pairwise(chain))
            for place, tag in enumerate(chain):
                powers[place][tag] += math.exp(score / temperature)
        logarithms = ([temperature * math.log(power) for power in of_word] for of_word in powers)
        by_hand += sum(divergence(log, soft, temperature) for log, (_, soft) in zip(logarithms, words))
    assert loss.item() == pytest.approx(temperature**2 * by_hand / 10, rel=1e-5)
    loss.backward()
    assert transitions.grad.any() and not output[1].grad[2, 2:].any()


def test_a_crf_that_says_what_its_teacher_says_has_no_loss():
    output, _, of_words, shares = random_parts()
    transitions = torch.randn(K, K, generator=torch.Generator().manual_seed(1))
    offsets = np.arange(0, B * T + 1, T)
    same = np.exp(log_marginals(output[1].detach().flatten(0, 1).numpy(), transitions.numpy(), offsets))
    targets = None, torch.from_numpy(same).unflatten(0, (B, T))
    assert soft_loss(output, targets, (1, 1), shares, 1.0, transitions)[1].item() == pytest.approx(
        0, abs=1e-5
    )
