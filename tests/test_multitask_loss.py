"""The loss of both tasks."""

import pytest
import torch
from torch.nn import functional

from model import MultiTaskOutput, multitask_loss


def random_output(B=4, T=6, C=3, K=5) -> MultiTaskOutput:
    torch.manual_seed(3)
    return MultiTaskOutput(torch.randn(B, C, requires_grad=True), torch.randn(B, T, K, requires_grad=True))


def test_loss_is_the_sum_over_labelled_items_divided_by_the_count():
    output = random_output()
    a = torch.tensor([0, -100, 2, 1])
    b = torch.randint(0, 5, (4, 6))
    b[2], b[0, 3:] = -100, -100
    weights = torch.tensor([1.0, 1.0, 0.5, 1.0])
    loss_a, loss_b = multitask_loss(output, a, b, 5.0, 30.0, weights)
    by_hand = [functional.cross_entropy(output.sentence_logits[i], a[i]) * weights[i] for i in (0, 2, 3)]
    torch.testing.assert_close(loss_a, sum(by_hand) / 5)
    labelled = b != -100
    torch.testing.assert_close(
        loss_b, functional.cross_entropy(output.token_logits[labelled], b[labelled], reduction="sum") / 30
    )


def test_micro_batches_add_up_to_the_whole_batch():
    output, a, b = random_output(), torch.tensor([0, -100, 2, 1]), torch.randint(0, 5, (4, 6))
    whole = multitask_loss(output, a, b, 3, 24)
    parts = [
        multitask_loss(
            MultiTaskOutput(output[0][i : i + 2], output[1][i : i + 2]), a[i : i + 2], b[i : i + 2], 3, 24
        )
        for i in (0, 2)
    ]
    for task in (0, 1):
        torch.testing.assert_close(parts[0][task] + parts[1][task], whole[task])


@pytest.mark.parametrize("count", [0, 7])
def test_a_batch_without_labels_adds_exactly_zero(count):
    output = random_output()
    nothing = multitask_loss(output, torch.full((4,), -100), torch.full((4, 6), -100), count, count)
    assert [loss.item() for loss in nothing] == [0.0, 0.0]
    sum(nothing).backward()
    assert not output.sentence_logits.grad.any()
    assert not output.token_logits.grad.any()
