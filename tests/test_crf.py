"""The linear-chain CRF against the sum over all sequences of tags."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch

from crf import chain_loss, chain_marginals
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


def test_marginals_and_their_gradients_are_those_of_the_sum_over_all_sequences(batch):
    scores, transitions, labels = batch
    found = chain_marginals(scores, transitions, labels >= 0)
    of_chains = []
    for row, tags in zip(scores, labels):
        words = row[tags >= 0]
        for place in range(len(words)):
            every = [[] for _ in range(scores.shape[-1])]
            for sequence in product(range(scores.shape[-1]), repeat=len(words)):
                every[sequence[place]].append(chain_score(words, transitions, sequence))
            sums = torch.stack([torch.stack(scores_of_tag).logsumexp(0) for scores_of_tag in every])
            of_chains.append(sums.log_softmax(0))
    slow, fast = torch.stack(of_chains), found[labels >= 0]
    torch.testing.assert_close(fast.double(), slow, rtol=1e-6, atol=1e-6)
    weights = torch.rand(slow.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    pairs = zip(*(torch.autograd.grad((weights * one).sum(), batch[:2]) for one in (fast, slow)))
    for one, two in pairs:
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-7)
    assert found.isfinite().all()


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


@pytest.mark.parametrize(
    ("weights", "smoothing"), [([1.0, 1.0, 1.0], 0.0), ([0.5, 2.0, 3.0], 0.0), (None, 0.2)]
)
def test_class_weights_and_label_smoothing_are_about_the_probabilities_of_single_words(
    batch, weights, smoothing
):
    scores, transitions, labels = batch
    output, classes = MultiTaskOutput(torch.zeros(4, 2), scores), torch.full((4,), UNLABELLED)
    of_tags = None if weights is None else torch.tensor(weights)
    _, loss = multitask_loss(
        output, classes, labels, 1, 8, None, (None, of_tags), smoothing, transitions=transitions
    )
    total = 0.0
    for row, tags in zip(scores.detach(), labels):
        own = tags[tags >= 0].tolist()
        if own:
            logarithms = np.log(slow_marginals(row[tags >= 0].numpy(), transitions.detach().numpy()))
            wanted = (1 - smoothing) * np.eye(3)[own] + smoothing / 3
            total -= (np.array(weights or [1, 1, 1])[own] * (wanted * logarithms).sum(1)).sum()
    assert loss.item() == pytest.approx(total / 8, rel=1e-5)
    loss.backward()
    assert transitions.grad.any() and not scores.grad[labels < 0].any()


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
    marginals = chain_marginals(scores * 1e4, transitions * 1e4, labels >= 0)
    assert marginals.isfinite().all()
    gradients = torch.autograd.grad(marginals.sum(), batch[:2])
    assert all(gradient.isfinite().all() for gradient in gradients)
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
