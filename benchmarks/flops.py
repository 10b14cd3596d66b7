"""The number of floating-point operations of training, to tell how well a run uses its machine."""

from typing import NamedTuple


class Shape(NamedTuple):
    """Sizes of the encoder and its heads."""

    hidden: int
    intermediate: int
    layers: int
    classes: int
    tags: int


class Work(NamedTuple):
    """The windows of a corpus."""

    windows: int
    tokens: int  # without padding
    squares: int  # sum of the squared lengths


def training_flops(shape: Shape, work: Work, frozen_layers: int | None = None) -> int:
    """Floating-point operations of forward and backward passes over `work`, every real token once.

    Only matrix multiplications count, 2mkn for (m, k) by (k, n), as in torch's FlopCounterMode with eager
    attention; not biases, norms, softmax, dropout, embeddings and the optimizer. With W weights in linear
    layers a token costs 2W forward, 2W for the gradient of the weights and 2W for that of the input: 6W if
    trained, 2W if frozen. The two multiplications of attention over T tokens cost 4·T²·D forward and twice
    that backward. `frozen_layers`: embeddings and this many lowest layers are frozen; None: nothing is."""
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
        total -= 2 * 3 * D * D * tokens  # query, key and value of the lowest trained layer: no input gradient
    return total
