"""A BERT encoder for sentence embeddings, and the same encoder with two heads for multi-task learning.

Task A: one class per sentence. Task B: one tag per token. B batch, T tokens, D hidden, C classes, K tags."""

import math
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.bert.modeling_bert import BertPreTrainedModel

POOLINGS = ("cls", "mean")


class MultiTaskConfig(BertConfig):
    """BertConfig plus the heads' sizes and names, and the settings that prediction takes over from training.

    Attributes:
        num_classes_task_a: C, the size of the sentence head.
        num_labels_task_b: K, the size of the token head: transformers' `num_labels`, the size of `id2label`.
        classes: the C class names; None until training sets them.
        pooling: the sentence embedding: "cls" ([CLS] vector) or "mean" (mean over all tokens).
        tag_scheme: "IO" or "BIO"; None until training sets it.
        max_length, stride: size and overlap of a long text's windows, in tokens with [CLS] and [SEP].
        temperature_task_a, temperature_task_b: divisors of a head's logits before the softmax that gives
            probabilities (Guo et al. 2017). The model itself returns the logits undivided.

    Raises ValueError for an unknown pooling, for names whose number is not the size of their head, and for a
    temperature that is not a finite number above 0."""

    model_type = "bert"
    attribute_map = {"num_labels_task_b": "num_labels"}

    num_classes_task_a: int = 2
    classes: list[str] | None = None
    pooling: str = "cls"
    tag_scheme: str | None = None
    max_length: int = 128
    stride: int = 32
    temperature_task_a: float = 1.0
    temperature_task_b: float = 1.0

    def __post_init__(self, **kwargs: Any) -> None:
        size, has_names = kwargs.pop("num_labels_task_b", None), self.id2label is not None
        super().__post_init__(**kwargs)
        if size is not None:
            if has_names and size != self.num_labels:
                raise ValueError(f"num_labels_task_b is {size}, but id2label has {self.num_labels} entries")
            self.num_labels = size
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling is {self.pooling!r}; it must be one of {', '.join(POOLINGS)}")
        if self.classes is not None and len(self.classes) != (size := self.num_classes_task_a):
            raise ValueError(f"num_classes_task_a is {size}, but classes has {len(self.classes)} names")
        for name in ("temperature_task_a", "temperature_task_b"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a finite number above 0")

    def to_dict(self) -> dict[str, Any]:
        """The fields of config.json, `num_labels_task_b` included."""
        # transformers leaves out aliases, but readers of config.json look for this one
        return {**super().to_dict(), "num_labels_task_b": self.num_labels}


class SentenceTransformer(BertPreTrainedModel):
    """BERT without its pooler → one embedding per sentence: the [CLS] vector (Devlin et al. 2019, §3) or the
    mean over the tokens (Reimers & Gurevych 2019, §3), as `config.pooling` says.

    >>> model = SentenceTransformer.from_pretrained("bert-base-uncased", pooling="mean")
    >>> embeddings = model(input_ids, attention_mask)  # (B, D)"""

    config: MultiTaskConfig
    config_class = MultiTaskConfig
    # published BERT checkpoints contain parts that neither the embedding nor the heads use
    _keys_to_ignore_on_load_unexpected = [r"^cls\.", r"pooler\.", r"position_ids"]

    def __init__(self, config: MultiTaskConfig):
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
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
            hidden, depth = self.bert.embeddings(input_ids), 0
        mask = create_bidirectional_mask(self.config, hidden, attention_mask)
        for layer in self.bert.encoder.layer[depth:layers]:
            hidden = layer(hidden, mask)
        return hidden

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
    """One encoder and two linear heads, each after dropout: a sentence's class (A), a tag per token (B).

    Head A reads the sentence embedding, head B each token's hidden state (Devlin et al. 2019, §4.1 and §5.3).
    Head B has the names of BertForTokenClassification, which can therefore load a saved model.

    >>> sizes = {"num_classes_task_a": 3, "num_labels_task_b": 4}
    >>> model = MultiTaskTransformer.from_pretrained("bert-base-uncased", **sizes)
    >>> sentence_logits, token_logits = model(input_ids, attention_mask)"""

    def __init__(self, config: MultiTaskConfig):
        super().__init__(config)
        self.sentence_dropout = nn.Dropout(config.hidden_dropout_prob)
        self.sentence_classifier = nn.Linear(config.hidden_size, config.num_classes_task_a)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels_task_b)
        self.post_init()

    def forward(  # type: ignore[override]  # returns logits where the base class returns an embedding
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        hidden: Tensor | None = None,
        depth: int = 0,
    ) -> MultiTaskOutput:
        """Token ids (B, T) and mask (B, T) → logits (B, C) and (B, T, K). No mask: there is no padding.

        `hidden` and `depth` are those of `encode`. Raises ValueError if neither input is given."""
        tokens = input_ids if hidden is None else hidden
        if tokens is None:
            raise ValueError("the model needs input_ids or hidden")
        if attention_mask is None:
            attention_mask = torch.ones(tokens.shape[:2], dtype=torch.long, device=self.device)
        return self.heads(self.encode(input_ids, attention_mask, hidden, depth), attention_mask)

    def heads(self, hidden: Tensor, attention_mask: Tensor | None = None) -> MultiTaskOutput:
        """Hidden states (B, T, D) of the last layer and, for mean pooling, the mask (B, T) → logits."""
        return MultiTaskOutput(
            self.sentence_classifier(self.sentence_dropout(self.pool(hidden, attention_mask))),
            self.classifier(self.dropout(hidden)),
        )

    def reset(self, task_a: bool = False, task_b: bool = False) -> None:
        """Give the chosen heads new random weights as BERT draws them: normal weights, zero bias."""
        for head, chosen in ((self.sentence_classifier, task_a), (self.classifier, task_b)):
            if chosen:
                nn.init.normal_(head.weight, std=self.config.initializer_range)
                nn.init.zeros_(head.bias)

    def freeze(
        self, backbone: bool = False, task_a: bool = False, task_b: bool = False, layers: int = 0
    ) -> None:
        """Freeze the encoder, a head, or the embeddings and the lowest `layers` layers; unfreeze all else.

        Frozen parts also run without dropout. Raises ValueError if the encoder has fewer layers."""
        if not 0 <= layers <= self.config.num_hidden_layers:
            raise ValueError(f"can't freeze {layers} layers: the encoder has {self.config.num_hidden_layers}")
        self.requires_grad_(True)
        self.bert.requires_grad_(not backbone)
        if layers:
            self.bert.embeddings.requires_grad_(False)
            self.bert.encoder.layer[:layers].requires_grad_(False)
        self.sentence_classifier.requires_grad_(not task_a)
        self.classifier.requires_grad_(not task_b)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; parts without trainable parameters stay in evaluation mode."""
        super().train(mode)
        heads = (self.sentence_dropout, self.sentence_classifier), (self.dropout, self.classifier)
        for parts in (*((part,) for part in self._encoder_parts()), *heads):
            trains = any(parameter.requires_grad for part in parts for parameter in part.parameters())
            for part in parts:
                part.train(mode and trains)
        return self

    def _encoder_parts(self) -> tuple[nn.Module, ...]:
        """The embeddings, then the layers from the lowest to the highest."""
        return self.bert.embeddings, *self.bert.encoder.layer

    @property
    def frozen_depth(self) -> int:
        """Number of lowest layers that are frozen with the embeddings: their output never changes."""
        parts = self._encoder_parts()
        frozen = takewhile(lambda part: not any(p.requires_grad for p in part.parameters()), parts)
        return max(0, len(list(frozen)) - 1)


def multitask_loss(
    output: MultiTaskOutput,
    labels_task_a: Tensor,
    labels_task_b: Tensor,
    count_task_a: float,
    count_task_b: float,
    weights_task_a: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each task: the sum over the batch's labelled items, divided by a given count.

    Args:
        labels_task_a, labels_task_b: class ids (B,) and tag ids (B, T); −100 where there is no label.
        count_task_a, count_task_b: labelled items of the whole step, to whose loss its micro-batches add up.
        weights_task_a: factor (B,) of each window's loss: 1 / n for a text of n windows, which counts once.

    Returns both losses in float32. A task without labels in the batch has loss 0, also if its count is 0."""
    sentence_logits, token_logits = output
    loss_a = functional.cross_entropy(sentence_logits.float(), labels_task_a, reduction="none")
    if weights_task_a is not None:
        loss_a = loss_a * weights_task_a
    flat = token_logits.flatten(0, 1).float()  # (B · T, K)
    loss_b = functional.cross_entropy(flat, labels_task_b.flatten(), reduction="sum")
    # where the count is 0, no item is labelled: the sum is 0, and any divisor will do
    return loss_a.sum() / (count_task_a or 1), loss_b / (count_task_b or 1)
