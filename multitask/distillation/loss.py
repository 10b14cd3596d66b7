"""The part of the loss that compares a student with its teacher.

B batch, T tokens, C classes, K tags."""

from torch import Tensor
from torch.nn import functional

from crf import chain_marginals
from model import MultiTaskOutput


def soft_loss(
    output: MultiTaskOutput,
    targets: tuple[Tensor | None, Tensor | None],
    counts: tuple[float | Tensor, float | Tensor],
    weights_task_a: Tensor,
    temperature: float,
    transitions: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """The divergence KL(teacher || student) of each task at a temperature, times the temperature's square:
    its gradients then are as large as those of the labels' loss. Hinton, Vinyals & Dean 2015, §2.

    Args:
        output: the student's logits.
        targets: the teacher's probabilities at the same temperature, (B, C) and (B, T, K); zeros where it
            gives none; None for a task that it does not know.
        counts: divisors of both sums, as in `multitask_loss`.
        weights_task_a: factor (B,) of each window's loss: 1 / n for a text of n windows.
        temperature: divides the student's logits, and its transitions.
        transitions: (K, K) of a CRF: the probabilities of a word's tags are then its marginals in the chain
            of the window's words that have soft targets (posterior distillation, Wang et al. 2020).

    Returns both losses in float32; None for a task without targets."""
    losses: list[Tensor | None] = []
    for logits, soft, count, chain in zip(output, targets, counts, (None, transitions)):
        if soft is None:
            losses.append(None)
            continue
        scaled = logits.float() / temperature
        if chain is None:
            student = functional.log_softmax(scaled, -1)
        else:
            student = chain_marginals(scaled, chain / temperature, soft.any(-1))
        divergence = functional.kl_div(student, soft, reduction="none").sum(-1)  # 0 where all targets are 0
        if divergence.dim() == 1:
            divergence = divergence * weights_task_a
        divisor = count if isinstance(count, Tensor) else count or 1
        losses.append(temperature**2 * divergence.sum() / divisor)
    return losses[0], losses[1]
