"""A BERT encoder for sentence embeddings, and the same encoder with two heads: a class, entity tags."""

import math
from itertools import takewhile
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.bert.modeling_bert import BertPreTrainedModel

POOLINGS = ("cls", "mean")


class MultiTaskConfig(BertConfig):
    """BertConfig plus the two heads' sizes and names, and what prediction must repeat of training.

    num_classes_task_a: size of the sentence head; `classes` holds its names, None until they are known.
    num_labels_task_b: size of the token head: transformers' `num_labels` under another name, so it always
        agrees with `id2label`, which AutoModelForTokenClassification reads.
    pooling: "cls" or "mean", the sentence embedding.
    tag_scheme: "IO" or "BIO", None until a tag set is known.
    max_length, stride: a text's windows, in tokens with [CLS] and [SEP], and their overlap.
    temperature_task_a, temperature_task_b: each head's logits are divided by its own before the softmax that
        gives probabilities (Guo et al. 2017). The model's outputs are the logits, before it.

    Raises ValueError for an unknown pooling, for names whose number is not the head's size, and for a
    temperature that is not finite and above 0.
    """

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

    def __post_init__(self, **kwargs):
        labels, named = kwargs.pop("num_labels_task_b", None), self.id2label is not None
        super().__post_init__(**kwargs)
        if labels is not None and named and labels != len(self.id2label):
            raise ValueError(f"num_labels_task_b is {labels}, but id2label has {len(self.id2label)} entries")
        if labels is not None:
            self.num_labels = labels
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling is {self.pooling!r}; it is one of {', '.join(POOLINGS)}")
        if self.classes is not None and len(self.classes) != self.num_classes_task_a:
            raise ValueError(
                f"num_classes_task_a is {self.num_classes_task_a}, but classes has {len(self.classes)}"
            )
        for name in ("temperature_task_a", "temperature_task_b"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a finite number above 0")

    def to_dict(self) -> dict:
        # an alias is not a field, and readers of config.json look for this name
        return {**super().to_dict(), "num_labels_task_b": self.num_labels}


class SentenceTransformer(BertPreTrainedModel):
    """BERT without its pooler; a sentence's embedding is its [CLS] vector or the mean over its tokens.

    Devlin et al. 2019, §3 ([CLS]); Reimers & Gurevych 2019, §3 (mean)."""

    config_class = MultiTaskConfig
    # parts of published BERT checkpoints that neither the embedding nor the heads use
    _keys_to_ignore_on_load_unexpected = [r"^cls\.", r"pooler\.", r"position_ids"]

    def __init__(self, config: MultiTaskConfig):
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        if type(self) is SentenceTransformer:  # a subclass calls it when its own parts exist
            self.post_init()

    def encode(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor,
        hidden: Tensor | None = None,
        depth: int = 0,
        layers: int | None = None,
    ) -> Tensor:
        """Token ids (B, T) and their mask (B, T) → last hidden states (B, T, D).

        With `hidden` (B, T, D), the output of the lowest `depth` layers, only the layers above them run; with
        `layers`, only the lowest ones, up to that number."""
        if hidden is None:
            hidden, depth = self.bert.embeddings(input_ids), 0
        mask = create_bidirectional_mask(self.config, hidden, attention_mask)
        for layer in self.bert.encoder.layer[depth:layers]:
            hidden = layer(hidden, mask)
        return hidden

    def recompute_activations(self) -> None:
        """Gradient checkpointing (Chen et al. 2016): a layer in training keeps its input, and runs again
        in the backward pass. Losses and gradients stay the same, dropout included."""
        self.activation_checkpointing_enable({"use_reentrant": False})
        # its hook gives the embeddings' output a gradient, which would be carried down through frozen layers
        self.disable_input_require_grads()

    def pool(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Hidden states (B, T, D) and the mask (B, T), which only the mean needs → embeddings (B, D)."""
        if self.config.pooling == "cls":
            return hidden[:, 0]
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)  # (B, T, 1)
        return (hidden * weights).sum(1) / weights.sum(1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Token ids (B, T) → sentence embeddings (B, D)."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        return self.pool(self.encode(input_ids, attention_mask), attention_mask)


class MultiTaskOutput(NamedTuple):
    """sentence_logits (B, C) of task A and token_logits (B, T, K) of task B."""

    sentence_logits: Tensor
    token_logits: Tensor


class MultiTaskTransformer(SentenceTransformer):
    """One encoder, two linear heads behind dropout: the sentence's class (A), a tag for every token (B).

    >>> sizes = {"num_classes_task_a": 3, "num_labels_task_b": 4}
    >>> model = MultiTaskTransformer.from_pretrained("bert-base-uncased", **sizes)
    >>> sentence_logits, token_logits = model(input_ids, attention_mask)

    The token head is named as in BertForTokenClassification, which can so load what is saved here."""

    def __init__(self, config: MultiTaskConfig):
        super().__init__(config)
        self.sentence_dropout = nn.Dropout(config.hidden_dropout_prob)
        self.sentence_classifier = nn.Linear(config.hidden_size, config.num_classes_task_a)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        hidden: Tensor | None = None,
        depth: int = 0,
    ) -> MultiTaskOutput:
        """Token ids (B, T) and mask (B, T) → MultiTaskOutput. `hidden` and `depth` are those of `encode`."""
        if attention_mask is None:
            shape = input_ids.shape if hidden is None else hidden.shape[:2]
            attention_mask = torch.ones(shape, dtype=torch.long, device=self.device)
        return self.heads(self.encode(input_ids, attention_mask, hidden, depth), attention_mask)

    def heads(self, hidden: Tensor, attention_mask: Tensor | None = None) -> MultiTaskOutput:
        """Last hidden states (B, T, D) → MultiTaskOutput. The mask (B, T) is needed for mean pooling only."""
        return MultiTaskOutput(
            self.sentence_classifier(self.sentence_dropout(self.pool(hidden, attention_mask))),
            self.classifier(self.dropout(hidden)),
        )

    def reset(self, task_a: bool = False, task_b: bool = False) -> None:
        """Give a head new random weights, as in a model that never had it: normal, bias 0."""
        for head, chosen in ((self.sentence_classifier, task_a), (self.classifier, task_b)):
            if chosen:
                nn.init.normal_(head.weight, std=self.config.initializer_range)
                nn.init.zeros_(head.bias)

    def freeze(
        self, backbone: bool = False, task_a: bool = False, task_b: bool = False, layers: int = 0
    ) -> None:
        """Exclude parts from training, and include all others again. Frozen parts also run without dropout.

        `layers` freezes the embeddings and so many of the lowest layers. ValueError if there are fewer."""
        if not 0 <= layers <= self.config.num_hidden_layers:
            raise ValueError(
                f"{layers} layers can't be frozen: the encoder has {self.config.num_hidden_layers}"
            )
        self.requires_grad_(True)
        self.bert.requires_grad_(not backbone)
        if layers:
            self.bert.embeddings.requires_grad_(False)
            self.bert.encoder.layer[:layers].requires_grad_(False)
        self.sentence_classifier.requires_grad_(not task_a)
        self.classifier.requires_grad_(not task_b)
        self.train(self.training)

    def train(self, mode: bool = True) -> "MultiTaskTransformer":
        """As in torch, but a part without trainable parameters stays in evaluation mode."""
        super().train(mode)
        heads = (self.sentence_dropout, self.sentence_classifier), (self.dropout, self.classifier)
        for parts in (*((part,) for part in self._depths()), *heads):
            trains = any(parameter.requires_grad for part in parts for parameter in part.parameters())
            for part in parts:
                part.train(mode and trains)
        return self

    def _depths(self) -> tuple[nn.Module, ...]:
        return self.bert.embeddings, *self.bert.encoder.layer

    @property
    def frozen_depth(self) -> int:
        """How many of the lowest layers give the same output all through training: they and the embeddings
        under them are frozen."""
        frozen = takewhile(lambda part: not any(p.requires_grad for p in part.parameters()), self._depths())
        return max(0, len(list(frozen)) - 1)


def multitask_loss(
    output: MultiTaskOutput,
    labels_task_a: Tensor,
    labels_task_b: Tensor,
    count_task_a: float,
    count_task_b: float,
    weights_task_a: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each task: summed over the batch's labelled items, divided by the count given.

    labels_task_a (B,) and labels_task_b (B, T) hold −100 where there is no label. The caller gives the number
    of labelled items of the whole step, so that the losses of its micro-batches add up to the loss of the
    whole. weights_task_a (B,) is a window's share of its text: a text of n windows counts once, not n times.
    A batch without labels for a task adds exactly 0 to it, also where the count is 0."""
    sentence_logits, token_logits = output
    loss_a = functional.cross_entropy(sentence_logits.float(), labels_task_a, reduction="none")
    if weights_task_a is not None:
        loss_a = loss_a * weights_task_a
    loss_b = functional.cross_entropy(
        token_logits.flatten(0, 1).float(), labels_task_b.flatten(), reduction="sum"
    )
    # every item is unlabelled where the count is 0, so the sum is 0 and its divisor does not matter
    return loss_a.sum() / (count_task_a or 1), loss_b / (count_task_b or 1)
