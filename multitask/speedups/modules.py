"""Modules that compute the same as torch's own, faster on a CPU."""

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from model import MultiTaskTransformer

_LEVELS = 1 << 16  # a mask uses random numbers of 16 bits: four of them from one 64-bit number


class FastDropout(nn.Dropout):
    """Dropout (Srivastava et al. 2014), its probability rounded to 1/65536; a quarter of the cost on a CPU.

    On the CPU nn.Dropout spends nearly all of its time drawing one 64-bit random number per element, one
    after another. This module draws one for four elements, from the same generator: `torch.manual_seed`
    makes it repeatable too, but the masks differ from those of nn.Dropout."""

    def forward(self, x: Tensor) -> Tensor:
        dropped = round(self.p * _LEVELS)
        if not self.training or dropped == 0:
            return x
        draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(-(1 << 63), None)
        # compared as floats, which hold 16 bits: on a CPU torch makes masks of bool at a tenth of the speed
        levels = draws.view(torch.int16)[: x.numel()].view(x.shape).to(torch.float32)
        mask = levels.ge_(dropped - _LEVELS // 2).mul_(_LEVELS / (_LEVELS - dropped))
        return x * mask.to(x.dtype)


def use_fast_dropout(model: nn.Module) -> None:
    """Replace every nn.Dropout by FastDropout. Probabilities and training modes stay the same."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, FastDropout(child.p).train(child.training))


class OccurringRows(nn.Module):
    """Replaces an nn.Embedding (V, D): trains only the rows (R, D) whose ids occur in the corpus.

    A row that never occurs gets no gradient, and embeddings have no weight decay, thus it never changes. But
    its gradient of zeros is computed, measured and given to the optimizer at every step, and in a small
    encoder the embeddings are half of all parameters. In training, only ids that occur are allowed; in
    evaluation, all are. The state dict holds the whole table under the embedding's own name."""

    rows: Tensor  # (R,) ids that occur
    place: Tensor  # (V,) id → its place in `rows`, -1 for ids that do not occur
    table: Tensor  # (V, D) the whole embedding, as evaluation uses it

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
        """As in torch. Leaving training copies the trained rows into the table."""
        if not mode:
            self._update_table()
        return super().train(mode)

    def _update_table(self) -> None:
        # weight._version can't tell whether this is needed: the fused AdamW does not increase it
        self.table[self.rows] = self.weight.detach()

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        self._update_table()
        destination[f"{prefix}weight"] = self.table.clone()


def train_occurring_rows(model: MultiTaskTransformer, ids: np.ndarray) -> None:
    """Train only the word embeddings of `ids` (any shape). Does nothing where the embeddings are frozen."""
    encoder = cast(PreTrainedModel, model.base_model)
    embeddings = cast(nn.Embedding, encoder.get_input_embeddings())
    if embeddings.weight.requires_grad:
        encoder.set_input_embeddings(OccurringRows(embeddings, ids))
        model.train(model.training)
