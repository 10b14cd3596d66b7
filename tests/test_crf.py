"""The linear-chain CRF against the sum over all sequences of tags."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch

from crf import chain_loss
from model import MultiTaskOutput, multitask_loss
from multitask.encoders.tag_chain import log_marginals

UNLABELLED = -100


def chain_score(scores, transitions, tags):
    """The score of one sequence of tags (n,) for words with scores (n, K)."""
    local = sum(word[tag] for word, tag in zip(scores, tags))
    return local + sum(transitions[pair] for pair in pairwise(tags))


def slow_loss(scores, transitions, labels):
    """−log p of the labelled tokens' tags: the logarithm of the sum over all sequences, less their score."""
    total = scores.new_zeros(())
    for row, tags in zip(scores, labels):
        words, own = row[tags >= 0], tags[tags >= 0].tolist()
        if own:
            sequences = product(range(scores.shape[-1]), repeat=len(own))
            every = torch.stack([chain_score(words, transitions, sequence) for sequence in sequences])
            total = total + every.logsumexp(0) - chain_score(words, transitions, own)
    return total


def slow_marginals(scores, transitions):
    """The probabilities (n, K) of the tags of one text's words (n, K)."""
    sums = np.zeros(scores.shape)
    for tags in product(range(scores.shape[1]), repeat=len(scores)):
        sums[np.arange(len(tags)), tags] += np.exp(chain_score(scores, transitions, tags))
    return sums / sums.sum(1, keepdims=True)


@pytest.fixture
def batch():
    """Scores (B, T, K), transitions (K, K) and labels (B, T): rows with tokens that are no words between
    words, with none, with one and with words alone."""
    random = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(4, 5, 3, dtype=torch.float64, generator=random)
    transitions = 2 * torch.randn(3, 3, dtype=torch.float64, generator=random)
    labels = torch.randint(0, 3, (4, 5), generator=random)
    labels[0, [0, 2, 4]] = labels[1] = labels[2, 1:] = UNLABELLED
    return scores.requires_grad_(), transitions.requires_grad_(), labels


def test_the_loss_and_its_gradients_are_those_of_the_sum_over_all_sequences(batch):
    scores, transitions, labels = batch
    fast, slow = chain_loss(scores, transitions, labels), slow_loss(scores, transitions, labels)
    torch.testing.assert_close(fast.double(), slow)
    pairs = zip(*(torch.autograd.grad(7 * loss, batch[:2]) for loss in (fast, slow)))
    for one, two in pairs:
        torch.testing.assert_close(one, two, rtol=1e-7, atol=1e-12)


def test_without_transitions_the_loss_is_the_cross_entropy_of_each_word(batch):
    scores, transitions, labels = batch
    output = MultiTaskOutput(torch.zeros(4, 2), scores)
    classes = torch.full((4,), UNLABELLED)
    losses = [
        multitask_loss(output, classes, labels, 1, 8, transitions=weights)[1]
        for weights in (None, torch.zeros_like(transitions))
    ]
    torch.testing.assert_close(*losses)
    assert losses[0] > 0
    with pytest.raises(ValueError, match="no class weights of tags"):
        weights = (None, torch.ones(3))
        multitask_loss(output, classes, labels, 1, 8, None, weights, transitions=transitions)


def test_a_batch_without_words_has_no_loss_and_no_gradient(batch):
    scores, transitions, labels = batch
    loss = chain_loss(scores, transitions, torch.full_like(labels, UNLABELLED))
    assert loss == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(loss, batch[:2]))


def test_large_scores_and_transitions_stay_finite(batch):
    scores, transitions, labels = batch
    loss = chain_loss(scores * 1e4, transitions * 1e4, labels)
    assert loss.isfinite() and loss > 1e3
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, batch[:2]))
    marginals = log_marginals(
        1e4 * scores.detach()[0].float().numpy(), 1e4 * transitions.detach().numpy(), np.array([0, 5])
    )
    assert np.isfinite(marginals).all()
    np.testing.assert_allclose(np.exp(marginals).sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("scale", [1, 10, 1e4])
def test_prediction_has_the_probabilities_whose_errors_training_lowers(batch, scale):
    scores, transitions, _ = (scale * part.detach() for part in batch)
    labels = torch.randint(0, 3, scores.shape[:2], generator=torch.Generator().manual_seed(1))
    (errors,) = torch.autograd.grad(chain_loss(scores.requires_grad_(), transitions, labels), [scores])
    expected = errors + torch.nn.functional.one_hot(labels, 3)
    offsets = np.arange(0, 21, 5)
    found = log_marginals(scores.detach().flatten(0, 1).numpy(), transitions.numpy(), offsets)
    np.testing.assert_allclose(np.exp(found), expected.flatten(0, 1), atol=1e-6)


def test_a_score_that_is_not_a_number_makes_the_loss_one(batch):
    scores, transitions, labels = batch
    spoiled = scores.detach().clone()
    spoiled[3, 2, 1] = float("nan")
    assert chain_loss(spoiled, transitions, labels).isnan()


@pytest.mark.parametrize("block", [1, 7, 1 << 14])
def test_marginals_are_those_of_the_sum_over_all_sequences(block, monkeypatch):
    monkeypatch.setattr("multitask.encoders.tag_chain.BLOCK_WORDS", block)
    random = np.random.default_rng(0)
    lengths = [4, 0, 1, 6, 2, 2, 0]
    offsets = np.append(0, np.cumsum(lengths))
    scores, transitions = random.normal(size=(sum(lengths), 3), scale=2), random.normal(size=(3, 3), scale=2)
    marginals = log_marginals(scores.astype(np.float32), transitions, offsets)
    for first, last in pairwise(offsets):
        if first < last:
            expected = slow_marginals(scores[first:last], transitions)
            np.testing.assert_allclose(np.exp(marginals[first:last]), expected, rtol=1e-4)
    assert log_marginals(scores[:0].astype(np.float32), transitions, np.array([0, 0])).shape == (0, 3)
