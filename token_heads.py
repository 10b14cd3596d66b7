"""What a token head reads besides the hidden state of a token: its neighbours, and other layers.

B batch, T tokens, D hidden, H size of a token's vector."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

TOKEN_HEADS = ("linear", "convolution", "window_crf", "convolution_crf")
CRF_HEADS = ("window_crf", "convolution_crf")
WINDOW = 3  # tokens that "window_crf" reads


def around(x: Tensor, attention_mask: Tensor | None, width: int) -> Tensor:
    """(B, T, H) and the mask (B, T) → the vectors of the `width` tokens around each token (B, T, width · H).

    Padding counts as zeros. No mask: there is none."""
    if attention_mask is not None:
        x = x * attention_mask.unsqueeze(-1).to(x.dtype)
    side = width // 2
    padded = functional.pad(x, (0, 0, side, side))
    return torch.cat([padded[:, i : i - 2 * side or None] for i in range(width)], -1)


class TokenConvolution(nn.Module):
    """Hidden states of several layers, n tensors (B, T, D) → a vector per token (B, T, H), which depends on
    the token and on the tokens around it.

    The layers of a token are projected together to H numbers; then two convolutions, the second one residual,
    read WIDTH tokens each. Lower layers know more about words than the last one does (Peters et al. 2018,
    §5.3; Tenney et al. 2019, §4). H is a third of D: it never equals D, therefore BertForTokenClassification
    refuses the weights, as those of the other families do."""

    WIDTH = 5

    def __init__(self, layers: int, hidden_size: int, dropout: float):
        super().__init__()
        self.size = max(1, hidden_size // 3)  # H
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(layers * hidden_size, self.size)
        self.first = nn.Linear(self.WIDTH * self.size, self.size)
        self.second = nn.Linear(self.WIDTH * self.size, self.size)

    def forward(self, states: Sequence[Tensor], attention_mask: Tensor | None = None) -> Tensor:
        """The states of each layer (B, T, D) and the mask (B, T) → (B, T, H). Padding counts as zeros."""
        x = functional.gelu(self.projection(self.dropout(torch.cat(list(states), -1))))
        x = self.first(around(x, attention_mask, self.WIDTH))
        x = x + self.second(around(self.dropout(functional.gelu(x)), attention_mask, self.WIDTH))
        return functional.gelu(x)
