"""A linear-chain conditional random field over the tags of a text (Lafferty, McCallum & Pereira 2001): the
tag of a word depends on those of its neighbours.

B batch, T tokens, K tags."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# the least likely transition is at most this many nats below the likeliest: no product below vanishes
MAX_SPREAD = 200.0
_LEAST = 1e-300  # a probability whose logarithm is finite


class TagTransitions(nn.Module):
    """The score of each tag after each other tag (K, K), as learned; at first all are 0.

    A transition occurs too seldom for the rate that suits a head's weights: with AdamW, whose steps do not
    depend on the size of a gradient, the factor RATE makes its rate that many times as high."""

    RATE = 10

    def __init__(self, tags: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(tags, tags))

    def forward(self) -> Tensor:
        """The scores (K, K) of the tag in the row, followed by the tag in the column."""
        return self.RATE * self.weight


def chain_loss(scores: Tensor, transitions: Tensor, labels: Tensor) -> Tensor:
    """The sum of −log p(tags | text) over a batch (Lample et al. 2016, §2.2), in float32 (0-dim).

    The tags of a text are a chain of its labelled tokens; its score is the sum of `scores` and `transitions`
    along it, and p the softmax over the scores of all chains.

    Args:
        scores: (B, T, K) of each tag of each token.
        transitions: (K, K) of a tag, the row, followed by another, the column.
        labels: (B, T) tag ids; negative where a token has no label: it is no part of the chain."""
    return _ChainLoss.apply(scores, transitions, labels)


def chain_marginals(scores: Tensor, transitions: Tensor, words: Tensor) -> Tensor:
    """log p(tag | text) of the tags of each word (B, T, K), in float32: the sum over all chains that have the
    tag (Rabiner 1989, §III.B). Unlike a loss of whole chains, it can be compared with probabilities of single
    words. The values of tokens that are no words mean nothing, and are finite.

    Args:
        scores, transitions: as in `chain_loss`.
        words: (B, T) whether a token is part of its text's chain."""
    joint = _passes(scores.double(), transitions.double(), words).joint
    return (joint / joint.sum(-1, keepdim=True)).clamp(min=_LEAST).log().float()


class _ChainLoss(torch.autograd.Function):
    """`chain_loss` by the forward–backward algorithm (Rabiner 1989, §III), whose probabilities are the
    gradient: what is expected less what is true."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, transitions: Tensor, labels: Tensor) -> Tensor:
        exact, steps = scores.double(), transitions.double()
        labelled = labels >= 0  # (B, T)
        passes = _passes(exact, steps, labelled)
        follows, joint = passes.follows, passes.joint
        total = joint.sum(-1, keepdim=True)
        expected = (joint / total).masked_fill(~labelled[..., None], 0)  # probabilities (B, T, K)
        weight = (passes.local * passes.after / total).masked_fill(~follows[..., None], 0)
        pairs = passes.moves * (
            passes.before.flatten(0, 1).T @ weight.flatten(0, 1)
        )  # expected numbers (K, K)

        highest, likeliest = exact.amax(-1), steps.max()
        log_total = (passes.sums.log() + highest).masked_fill(~labelled, 0).sum() + likeliest * follows.sum()
        gold = _one_hot(labels, len(steps))
        gold_pairs = _last_label(gold, labelled).flatten(0, 1).T @ (gold * follows[..., None]).flatten(0, 1)
        gold_score = exact.masked_fill(gold == 0, 0).sum() + (gold_pairs * steps).sum()
        ctx.save_for_backward((expected - gold).to(scores), (pairs - gold_pairs).to(transitions))
        return (log_total - gold_score).float()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        of_scores, of_transitions = ctx.saved_tensors
        return of_scores * gradient.to(of_scores), of_transitions * gradient.to(of_transitions), None


class _Passes(NamedTuple):
    """The forward and the backward pass over the chains of a batch.

    They have scaled probabilities in float64 instead of logarithms, since a matrix multiplication then does a
    step for all tags. Nothing waits for the device (`torch.where` with a number would)."""

    follows: Tensor  # (B, T) whether a token is part of a chain, and not its first
    moves: Tensor  # (K, K) exp of the transitions; the likeliest has 1
    local: Tensor  # (B, T, K) exp of a token's scores; the highest has 1
    before: Tensor  # (B, T, K) p of the last tag before each token, given all tokens before it
    after: Tensor  # (B, T, K) how likely each tag of a token makes the tokens after it
    joint: Tensor  # (B, T, K) proportional to the probability of each tag of a token
    sums: Tensor  # (B, T) by which the forward pass was divided at each token


def _passes(scores: Tensor, transitions: Tensor, words: Tensor) -> _Passes:
    """The passes for scores (B, T, K) and transitions (K, K) in float64; `words` (B, T) are the chains."""
    begins = words & (words.cumsum(1) == 1)
    follows = words & ~begins
    local = (scores - scores.detach().amax(-1, keepdim=True)).exp()
    moves = (transitions - transitions.detach().max()).clamp(min=-MAX_SPREAD).exp()
    before, sums = _forward_pass(local, moves, words, begins)
    after = _backward_pass(local, moves, follows)
    into = (before @ moves).masked_fill(begins[..., None], 1)
    return _Passes(follows, moves, local, before, after, into * local * after, sums)


def _forward_pass(local: Tensor, moves: Tensor, labelled: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
    """The probabilities (B, T, K) of the last tag before each token, given all tokens before it, and the sums
    (B, T) by which they were divided at each token."""
    current = torch.full_like(local[:, 0], 1 / len(moves))
    before, sums = [], []
    for here, is_labelled, is_first in _steps(local, labelled, begins):
        before.append(current)
        after = (current @ moves).masked_fill(is_first, 1) * here
        total = after.sum(-1, keepdim=True)
        current = torch.where(is_labelled, after / total, current)
        sums.append(total)
    return torch.stack(before, 1), torch.cat(sums, 1)


def _backward_pass(local: Tensor, moves: Tensor, follows: Tensor) -> Tensor:
    """How likely each tag of each token makes the tokens after it (B, T, K), scaled to the sum 1."""
    current, after = torch.full_like(local[:, 0], 1 / len(moves)), []
    for here, is_next in reversed([*_steps(local, follows)]):
        after.append(current)
        message = (here * current) @ moves.T
        current = torch.where(is_next, message / message.sum(-1, keepdim=True), current)
    return torch.stack(after[::-1], 1)


def _steps(local: Tensor, *masks: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The parts (B, K) of (B, T, K) with those (B, 1) of masks (B, T), from the first token."""
    return zip(local.unbind(1), *(mask[..., None].unbind(1) for mask in masks))


def _one_hot(labels: Tensor, tags: int) -> Tensor:
    """Tag ids (B, T) → (B, T, K) in float64; zeros where an id is negative."""
    return (labels[..., None] == torch.arange(tags, device=labels.device)).double()


def _last_label(gold: Tensor, labelled: Tensor) -> Tensor:
    """One-hot labels (B, T, K) → those of the last labelled token before each token (B, T, K); zeros where
    there is none."""
    place = torch.arange(1, gold.shape[1] + 1, device=gold.device)
    last = (place * labelled).cummax(1).values  # (B, T) 1 + the place of the last one up to here
    last = torch.nn.functional.pad(last[:, :-1], (1, 0))
    padded = torch.nn.functional.pad(gold, (0, 0, 1, 0))
    return padded.gather(1, last[..., None].expand_as(gold))
