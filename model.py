"""An encoder for sentence embeddings, and the same encoder with two heads for multi-task learning.

The encoder is a BERT or one of the other families (families.py); model_config.py has its configuration.

Task A: one class per sentence. Task B: one tag per token. B batch, T tokens, D hidden, L layers, C classes,
K tags."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, initialization

from crf import TagTransitions, chain_loss, chain_marginals
from families import part
from model_config import MultiTaskConfig, MultiTaskFields
from token_heads import CRF_HEADS, WINDOW, TokenConvolution, around

_OF_FAMILY = (
    "base_model_prefix",
    "supports_gradient_checkpointing",
    "_supports_sdpa",
    "_supports_flash_attn",
    "_supports_flex_attn",
    "_supports_attention_backend",
)


class SentenceTransformer(PreTrainedModel):
    """An encoder without its pooler → one embedding per sentence: the vector of the first token, [CLS]
    (Devlin et al. 2019, §3), or the mean over the tokens (Reimers & Gurevych 2019, §3), as `config.pooling`
    says. `base_model` is the encoder; its attribute has the family's own name, such as `bert`.

    >>> model = SentenceTransformer.from_pretrained("bert-base-uncased", pooling="mean")
    >>> embeddings = model(input_ids, attention_mask)  # (B, D)"""

    config: MultiTaskFields
    config_class = MultiTaskConfig
    # published checkpoints contain parts that neither the embedding nor the heads use
    _keys_to_ignore_on_load_unexpected = [
        r"^cls\.",
        r"pooler\.",
        r"position_ids",
        r"^lm_head\.",
        r"^(lm|mask)_predictions\.",
        r"^(discriminator|generator)_",
        r"^vocab_",
        r"^decoder\.",
        r"^head\.",
    ]

    def __init__(self, config: MultiTaskFields):
        encoder_class = config.family.encoder_class
        for name in _OF_FAMILY:  # what transformers asks a model class for
            setattr(self, name, getattr(encoder_class, name))
        super().__init__(config)
        self.add_module(self.base_model_prefix, config.family.make_encoder(config))
        if type(self) is SentenceTransformer:  # a subclass calls it after creating its own parts
            self.post_init()

    if TYPE_CHECKING:  # transformers' decorator hides the signature of torch's method

        def to(self, *args: Any, **kwargs: Any) -> Self: ...  # type: ignore[override]

    def encode(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor,
        hidden: Tensor | None = None,
        depth: int = 0,
        layers: int | None = None,
    ) -> Tensor:
        """Token ids (B, T) and mask (B, T), 1 for tokens and 0 for padding → hidden states (B, T, D).

        With `hidden` (B, T, D), the output of the lowest `depth` layers, only the layers above them run.
        With `layers`, the pass stops after that many of the lowest layers."""
        if hidden is None:
            hidden, depth = self.embed(input_ids, attention_mask), 0
        for output in self._outputs(hidden, attention_mask, depth, layers):
            hidden = output
        return hidden

    def embed(
        self, input_ids: Tensor | None, attention_mask: Tensor, positions: Tensor | None = None
    ) -> Tensor:
        """Token ids and mask (B, T) → the input of the lowest layer (B, T, D).

        `positions` (B, T) are those of the tokens in their windows, where a row holds several."""
        assert input_ids is not None  # callers give ids wherever they give no hidden states
        return self.config.family.embed(self.base_model, input_ids, attention_mask, positions)

    def _outputs(
        self, hidden: Tensor, attention_mask: Tensor, depth: int, layers: int | None = None
    ) -> Iterator[Tensor]:
        """The output of every layer above `depth`, up to the layer with the number `layers`; that of the last
        layer has passed the encoder's last norm."""
        family, count = self.config.family, self.config.num_hidden_layers
        last = count if layers is None else layers
        if depth >= last:
            return
        run = family.runner(self.base_model, hidden, attention_mask)
        for number in range(depth, last):
            hidden = run(number, hidden)
            if family.above and number == count - 1:
                hidden = part(self.base_model, family.above)(hidden)
            yield hidden

    def parts(self) -> list[list[nn.Module]]:
        """The modules of the encoder by depth: the embeddings, then each layer from the lowest."""
        return self.config.family.depths(self.base_model)

    def recompute_activations(self) -> None:
        """Turn on gradient checkpointing (Chen et al. 2016): in training a layer keeps only its input, and
        runs again in the backward pass. Losses and gradients stay the same, dropout included."""
        self.activation_checkpointing_enable({"use_reentrant": False})
        # else a hook makes the embeddings' output require gradients, which then flow through frozen layers
        self.disable_input_require_grads()

    def pool(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Hidden states (B, T, D) → embeddings (B, D). The mean leaves out padding, where the mask is 0."""
        if self.config.pooling == "cls":
            return hidden[:, 0]
        if attention_mask is None:
            return hidden.mean(1)
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)  # (B, T, 1)
        return (hidden * weights).sum(1) / weights.sum(1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Token ids (B, T) and mask (B, T) → sentence embeddings (B, D). No mask: there is no padding."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        return self.pool(self.encode(input_ids, attention_mask), attention_mask)


class MultiTaskOutput(NamedTuple):
    """The logits of both heads; unpacks as a pair."""

    sentence_logits: Tensor  # (B, C), task A
    token_logits: Tensor  # (B, T, K), task B


class MultiTaskTransformer(SentenceTransformer):
    """One encoder and two heads, each after dropout: a sentence's class (A), a tag per token (B).

    Head A reads the sentence embedding, the linear head B each token's hidden state (Devlin et al. 2019, §4.1
    and §5.3). It has the names of the family's own token classifier, such as BertForTokenClassification, and
    what that one has in front of it; the classifier can therefore load a saved model.
    Other kinds of head B read more, as `config.token_head` says; the classifier then has another width, and
    the family's own one refuses it. With a CRF the token logits are the scores of a linear chain, in which
    `transitions` has those of tags that follow each other: the probabilities of a word's tags depend on all
    words of its text.

    >>> sizes = {"num_classes_task_a": 3, "num_labels_task_b": 4}
    >>> model = MultiTaskTransformer.from_pretrained("bert-base-uncased", **sizes)
    >>> sentence_logits, token_logits = model(input_ids, attention_mask)"""

    def __init__(self, config: MultiTaskConfig):
        super().__init__(config)
        layers, size, dropout = config.num_hidden_layers, config.hidden_size, config.head_dropout
        self.sentence_dropout = nn.Dropout(dropout)
        self.sentence_classifier = nn.Linear(size, config.num_classes_task_a)
        self.token_convolution = self.head = self.transitions = None
        if config.token_head == "linear":
            self.head = config.family.token_head(config)
        elif config.token_head == "window_crf":
            size *= WINDOW
        else:
            self.token_convolution = TokenConvolution(layers + 1, size, dropout)
            size = self.token_convolution.size
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(size, config.num_labels_task_b)
        if config.token_head in CRF_HEADS:
            self.transitions = TagTransitions(config.num_labels_task_b)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """As in transformers, which calls it for modules whose weights a folder lacks."""
        super()._init_weights(module)
        if isinstance(module, TagTransitions):
            initialization.zeros_(module.weight)

    @property
    def read_layers(self) -> tuple[int, ...]:
        """The layers that the heads read, from the lowest: 0 for the embeddings, L for the last layer."""
        last = self.config.num_hidden_layers
        return (last,) if self.token_convolution is None else tuple(range(last + 1))

    def stored_layers(self, depth: int) -> tuple[int, ...]:
        """The layers whose output replaces the lowest `depth` layers: those that the heads read, and the one
        on which the next layer continues."""
        return (*(layer for layer in self.read_layers if layer < depth), depth)

    def forward(  # type: ignore[override]  # returns logits where the base class returns an embedding
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        hidden: Tensor | None = None,
        depth: int = 0,
    ) -> MultiTaskOutput:
        """Token ids (B, T) and mask (B, T) → logits (B, C) and (B, T, K). No mask: there is no padding.

        `hidden` and `depth` are those of `states`. Raises ValueError if neither input is given."""
        tokens = input_ids if hidden is None else hidden
        if tokens is None:
            raise ValueError("the model needs input_ids or hidden")
        if attention_mask is None:
            attention_mask = torch.ones(tokens.shape[:2], dtype=torch.long, device=self.device)
        return self.heads(self.states(input_ids, attention_mask, hidden, depth), attention_mask)

    def states(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor,
        hidden: Tensor | None = None,
        depth: int = 0,
        layers: Sequence[int] | None = None,
    ) -> list[Tensor]:
        """Token ids (B, T) and mask (B, T) → the hidden states (B, T, D) of `layers`, in rising order; None:
        of `read_layers`, as `heads` takes them.

        With `hidden`, the output of `stored_layers(depth)` (B, T, n, D), or (B, T, D) if that is one layer,
        only the layers above `depth` run."""
        if hidden is None:
            hidden, depth = self.embed(input_ids, attention_mask), 0
        stored = hidden.unbind(2) if hidden.dim() == 4 else (hidden,)
        layers = self.read_layers if layers is None else layers
        outputs = dict(zip(self.stored_layers(depth)[-len(stored) :], stored))
        above = self._outputs(stored[-1], attention_mask, depth, layers[-1])
        for layer, output in enumerate(above, depth + 1):
            if layer in layers:
                outputs[layer] = output
        return [outputs[layer] for layer in layers]

    def heads(
        self, hidden: Tensor | Sequence[Tensor], attention_mask: Tensor | None = None
    ) -> MultiTaskOutput:
        """The hidden states of `read_layers`, each (B, T, D), and the mask (B, T) → logits.

        Those of one layer may be given as a tensor. No mask: there is no padding. Raises ValueError for
        another number of layers."""
        states = [hidden] if isinstance(hidden, Tensor) else hidden
        if len(states) != len(self.read_layers):
            raise ValueError(f"the heads read {len(self.read_layers)} layers; {len(states)} are given")
        last = tokens = states[-1]
        if self.token_convolution is not None:
            tokens = self.token_convolution(states, attention_mask)
        elif self.config.token_head == "window_crf":
            tokens = around(last, attention_mask, WINDOW)
        elif self.head is not None:
            tokens = self.head(last)
        return MultiTaskOutput(
            self.sentence_classifier(self.sentence_dropout(self.pool(last, attention_mask))),
            self.classifier(self.dropout(tokens)),
        )

    def _head_parts(self) -> tuple[tuple[nn.Module, ...], tuple[nn.Module, ...]]:
        """The modules of head A and of head B."""
        token_parts = self.token_convolution, self.head, self.dropout, self.classifier, self.transitions
        return (
            (self.sentence_dropout, self.sentence_classifier),
            tuple(module for module in token_parts if module is not None),
        )

    def reset(self, task_a: bool = False, task_b: bool = False) -> None:
        """Give the chosen heads new random weights as BERT draws them: normal weights, zero bias; transitions
        of 0."""
        for modules, chosen in zip(self._head_parts(), (task_a, task_b)):
            drawn = [module for module in modules if chosen and module is not self.head]  # the encoder's own
            for module in (inner for outer in drawn for inner in outer.modules()):
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=self.config.initializer_range)
                    nn.init.zeros_(module.bias)
                elif isinstance(module, TagTransitions):
                    nn.init.zeros_(module.weight)

    def freeze(
        self, backbone: bool = False, task_a: bool = False, task_b: bool = False, layers: int = 0
    ) -> None:
        """Freeze the encoder, a head, or the embeddings and the lowest `layers` layers; unfreeze all else.

        Frozen parts also run without dropout. Raises ValueError if the encoder has fewer layers."""
        if not 0 <= layers <= self.config.num_hidden_layers:
            raise ValueError(f"can't freeze {layers} layers: the encoder has {self.config.num_hidden_layers}")
        self.requires_grad_(True)
        self.base_model.requires_grad_(not backbone)
        for below in self.parts()[: layers + 1] if layers else ():
            for module in below:
                module.requires_grad_(False)
        for modules, frozen in zip(self._head_parts(), (task_a, task_b)):
            for module in modules:
                module.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; parts without trainable parameters stay in evaluation mode."""
        super().train(mode)
        for modules in (*self.parts(), *self._head_parts()):
            trains = _trains(modules)
            for module in modules:
                module.train(mode and trains)
        return self

    @property
    def frozen_depth(self) -> int:
        """Number of lowest layers that are frozen with the embeddings: their output never changes."""
        frozen = takewhile(lambda modules: not _trains(modules), self.parts())
        return max(0, len(list(frozen)) - 1)


def _trains(modules: Iterable[nn.Module]) -> bool:
    return any(parameter.requires_grad for module in modules for parameter in module.parameters())


def multitask_loss(
    output: MultiTaskOutput,
    labels_task_a: Tensor,
    labels_task_b: Tensor,
    count_task_a: float | Tensor,
    count_task_b: float | Tensor,
    weights_task_a: Tensor | None = None,
    class_weights: Sequence[Tensor | None] = (None, None),
    label_smoothing: float = 0.0,
    transitions: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each task: the sum over the batch's labelled items, divided by a given count.

    Args:
        labels_task_a, labels_task_b: class ids (B,) and tag ids (B, T); −100 where there is no label.
        count_task_a, count_task_b: labelled items of the whole step, to whose loss its micro-batches add up.
            A tensor (0-dim) must not be 0.
        weights_task_a: factor (B,) of each window's loss: 1 / n for a text of n windows, which counts once.
        class_weights: factors of the labels' losses, (C,) and (K,); None: all 1. The counts then are sums of
            the labelled items' factors, as in torch's weighted mean.
        label_smoothing: share of each label's probability that is spread over all labels.
        transitions: (K, K) of a CRF: the loss of task B then is the cross-entropy of each window's tags as a
            whole. With class weights of tags or label smoothing, which are about single words, it is the sum
            of the words' cross-entropies instead, by their probabilities in the chain (Kakade et al. 2002).

    Returns both losses in float32. A task without labels in the batch has loss 0, also if its count is 0."""
    sentence_logits, token_logits = output
    weights_a, weights_b = class_weights
    loss_a = functional.cross_entropy(
        sentence_logits.float(), labels_task_a, weights_a, reduction="none", label_smoothing=label_smoothing
    )
    if weights_task_a is not None:
        loss_a = loss_a * weights_task_a
    scores = token_logits.float()
    if transitions is not None and weights_b is None and not label_smoothing:
        loss_b = chain_loss(scores, transitions, labels_task_b)
    else:
        if transitions is not None:
            scores = chain_marginals(scores, transitions, labels_task_b >= 0)
        flat, labels = scores.flatten(0, 1), labels_task_b.flatten()  # (B · T, K), (B · T,)
        loss_b = functional.cross_entropy(
            flat, labels, weights_b, reduction="sum", label_smoothing=label_smoothing
        )
    return loss_a.sum() / _divisor(count_task_a), loss_b / _divisor(count_task_b)


def _divisor(count: float | Tensor) -> float | Tensor:
    # where the count is 0, no item is labelled: the sum is 0, and any divisor will do
    return count if isinstance(count, Tensor) else count or 1
