"""The configuration of the model: the fields of an encoder's own one, and those of both heads.

C classes, K tags."""

import math
from typing import Any

from transformers import BertConfig, PreTrainedConfig

from families import FAMILIES, Family
from token_heads import TOKEN_HEADS

POOLINGS = ("cls", "mean")


class MultiTaskFields(PreTrainedConfig):
    """What the configuration of an encoder gets besides its own fields: the heads' sizes and names, and the
    settings that prediction takes over from training.

    Attributes:
        num_classes_task_a: C, the size of the sentence head.
        num_labels_task_b: K, the size of the token head: transformers' `num_labels`, the size of `id2label`.
        classes: the C class names; None until training sets them.
        pooling: the sentence embedding: "cls" ([CLS] vector) or "mean" (mean over all tokens).
        token_head: what the tag of a token is computed from: "linear" (its hidden state of the last layer),
            "convolution" (those of all layers, of the token and of the tokens around it), "convolution_crf"
            (the same, and the tags of the words around it) or "window_crf" (those of the last layer, of three
            tokens, and the tags of the words around it).
        tag_scheme: "IO" or "BIO"; None until training sets it.
        max_length, stride: size and overlap of a long text's windows, in tokens with [CLS] and [SEP].
        temperature_task_a, temperature_task_b: divisors of a head's logits before the softmax that gives
            probabilities (Guo et al. 2017). The model itself returns the logits undivided.

    Raises ValueError for an unknown pooling or token head, for names whose number is not the size of their
    head, and for a temperature that is not a finite number above 0."""

    num_classes_task_a: int = 2
    classes: list[str] | None = None
    pooling: str = "cls"
    token_head: str = "linear"
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
        for name, known in (("pooling", POOLINGS), ("token_head", TOKEN_HEADS)):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(known)}")
        if self.classes is not None and len(self.classes) != (size := self.num_classes_task_a):
            raise ValueError(f"num_classes_task_a is {size}, but classes has {len(self.classes)} names")
        for name in ("temperature_task_a", "temperature_task_b"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a finite number above 0")

    def to_dict(self) -> dict[str, Any]:
        """The fields of config.json, `num_labels_task_b` included."""
        # transformers leaves out aliases, but readers of config.json look for this one
        return {**super().to_dict(), "num_labels_task_b": self.num_labels}

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers; the class is that of the family named by `model_type`.

        Raises ValueError for a family that is not known."""
        kind = config_dict.get("model_type", cls.model_type)
        if kind not in CONFIGS:
            raise ValueError(f"model_type is {kind!r}; known are {', '.join(CONFIGS)}")
        return super(MultiTaskFields, CONFIGS[kind]).from_dict(config_dict, **kwargs)

    @property
    def family(self) -> Family:
        """What distinguishes the encoder from others."""
        return FAMILIES[self.model_type]

    @property
    def num_positions(self) -> int:
        """The most tokens of a window, special tokens included."""
        return self.family.num_positions(self)

    @property
    def head_dropout(self) -> float:
        """Dropout before the heads."""
        return getattr(self, self.family.dropouts[0])


_ALIASES = {"num_labels_task_b": "num_labels"}


class MultiTaskConfig(BertConfig, MultiTaskFields):
    """The configuration of a BERT with two heads; CONFIGS has those of the other families.

    `from_pretrained` and `from_dict` return the one that fits the `model_type` they find."""

    attribute_map = _ALIASES


def _config_class(family: Family) -> type[MultiTaskFields]:
    """The configuration class of a family: its own one with the fields of MultiTaskFields."""
    base = family.config_class
    members: dict[str, Any] = {"attribute_map": {**base.attribute_map, **_ALIASES}, "__module__": __name__}
    if not hasattr(base, family.dropouts[0]):  # EuroBERT has no dropout of hidden states
        members |= {"__annotations__": {family.dropouts[0]: float}, family.dropouts[0]: 0.1}
    return type(f"MultiTask{base.__name__}", (base, MultiTaskFields), members)


CONFIGS: dict[str, type[MultiTaskFields]] = {
    kind: _config_class(family) for kind, family in FAMILIES.items() if kind != "bert"
} | {"bert": MultiTaskConfig}
globals().update({made.__name__: made for made in CONFIGS.values()})  # where pickle looks for them
