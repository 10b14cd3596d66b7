"""The loss of a model's predictions, for choosing the best epoch by it."""

from collections.abc import Mapping

import numpy as np

from multitask.common import distributed
from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import TASKS
from multitask.inference.decoding import DecodedRows


class LossSums:
    """Sums of the cross-entropy of annotated texts (task A) and words (task B), from the logits with which
    prediction answers: of a text in several windows, their mean. Labels that the model does not know are
    left out; class weights and label smoothing do not apply."""

    def __init__(self, corpus: EncodedCorpus):
        self.corpus = corpus
        self.sums = np.zeros((len(TASKS), 2))  # of losses, and their number

    def add(self, rows: DecodedRows) -> None:
        """Add the next rows of the corpus."""
        words = slice(self.corpus.word_rows[rows.first], self.corpus.word_rows[rows.last])
        parts = (
            (rows.sentence_logits, self.corpus.row_classes[rows.first : rows.last]),
            (rows.word_logits, self.corpus.word_tags[words]),
        )
        for number, (logits, gold) in enumerate(parts):
            if logits is not None:
                self.sums[number] += _cross_entropy(logits, gold)

    def mean(self, weights: Mapping[str, float]) -> float | None:
        """The weighted sum of each task's mean loss; None without any label. All processes must call it."""
        sums = distributed.concatenate(self.sums[None]).sum(0)
        means = [weights[task] * s / n for task, (s, n) in zip(TASKS, sums.tolist()) if n and task in weights]
        return float(sum(means)) if means else None


def _cross_entropy(logits: np.ndarray, gold: np.ndarray) -> tuple[float, int]:
    known = (gold >= 0) & (gold < logits.shape[1])
    z, gold = logits[known].astype(np.float64), gold[known]
    highest = z.max(1, initial=-np.inf)
    sums = np.log(np.exp(z - highest[:, None]).sum(1)) + highest
    return float((sums - z[np.arange(len(z)), gold]).sum()), len(gold)
