"""A word embedding of which only the rows that a corpus uses are trained."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class OccurringRows(nn.Module):
    """In the place of an nn.Embedding (V, D): a parameter (R, D) of the rows that occur, and the whole table.

    A row that never occurs gets no gradient and, embeddings having no weight decay, never moves; but its
    gradient of zeros is made, measured and given to the optimizer at every step, and in a small encoder the
    embeddings are half of all parameters. In training only ids that occur may be asked for, in evaluation
    any. The state dict holds the whole table under the embedding's own name."""

    def __init__(self, embedding: nn.Embedding, ids: np.ndarray):
        super().__init__()
        table = embedding.weight.detach()
        padding = [] if embedding.padding_idx is None else [embedding.padding_idx]
        rows = torch.from_numpy(np.union1d(ids, padding).astype(np.int64)).to(table.device)
        place = torch.full((len(table),), -1, device=table.device)
        place[rows] = torch.arange(len(rows), device=table.device)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("place", place, persistent=False)
        self.register_buffer("table", table.clone(), persistent=False)
        self.weight = nn.Parameter(table[rows])
        self.padding = int(place[padding[0]]) if padding else None

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (B, T) → embeddings (B, T, D)."""
        if self.training:
            return functional.embedding(self.place[ids], self.weight, self.padding)
        return functional.embedding(ids, self.table)

    def train(self, mode: bool = True) -> "OccurringRows":
        """As in torch. Leaving training puts the rows back into the table."""
        if not mode:
            self._put_back()
        return super().train(mode)

    def _put_back(self) -> None:
        # weight._version would tell whether there is something to do, but the fused AdamW does not count up
        self.table[self.rows] = self.weight.detach()

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        self._put_back()
        destination[f"{prefix}weight"] = self.table.clone()


def train_occurring_rows(model: nn.Module, ids: np.ndarray) -> None:
    """Train only the word embeddings of `ids`, any shape. Nothing changes where none of them trains."""
    embeddings = model.bert.embeddings
    if embeddings.word_embeddings.weight.requires_grad:
        embeddings.word_embeddings = OccurringRows(embeddings.word_embeddings, ids)
        model.train(model.training)
