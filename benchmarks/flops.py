"""The matrix products of training, counted: the yardstick for how well a run uses its machine."""

from typing import NamedTuple


class Shape(NamedTuple):
    """Sizes of the encoder and of its heads."""

    hidden: int
    intermediate: int
    layers: int
    classes: int
    tags: int


class Work(NamedTuple):
    """Windows of a corpus, their tokens without padding, and the sum of their squared lengths."""

    windows: int
    tokens: int
    squares: int


def training_flops(shape: Shape, work: Work, frozen_layers: int | None = None) -> int:
    """Floating-point operations of forward and backward passes over `work`, every real token once.

    Counted are the products of matrices, 2mkn for (m, k) by (k, n), as FlopCounterMode of torch counts them
    with plain attention; not biases, norms, softmax, dropout, look-ups and the optimizer. With W weights in
    linear layers a token costs 2W forward, 2W for their gradient and 2W for that of their input: 6W if
    trained, 2W if frozen. Attention's two products over T tokens cost 4·T²·D forward, twice that backward.
    `frozen_layers`: so many of the lowest layers, and the embeddings, are frozen; None: nothing is."""
    D, I, L, C, K = shape  # noqa: E741
    windows, tokens, squares = work
    weights = 4 * D * D + 2 * D * I
    layer = 2 * weights * tokens + 4 * D * squares
    heads = 2 * D * C * windows + 2 * D * K * tokens
    trained = L - (frozen_layers or 0)
    total = L * layer + 2 * trained * layer + 2 * heads
    if trained:
        total += heads  # the gradient of their input
    if frozen_layers is not None and trained:
        total -= 2 * 3 * D * D * tokens  # the lowest trained query, key and value pass none further down
    return total
