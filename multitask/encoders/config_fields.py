"""The fields of config.json that are read for encoders of every family, with transformers' defaults.

Others have no effect."""

from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from multitask.encoders.prediction_fields import RULES


def _activation(name: str) -> str:
    from transformers.activations import ACT2FN

    if name not in ACT2FN:
        raise ValueError(f"unknown activation {name!r}")
    return name


def _by_rule(field: str) -> BeforeValidator:
    """Check a field by its rule before pydantic converts it."""

    def check(value: Any) -> Any:
        if not RULES[field].is_valid(value):
            raise ValueError(f"is not {RULES[field].meaning}")
        return value

    return BeforeValidator(check)


Size = Annotated[int, Field(ge=1, lt=1 << 24)]
_Labels = Annotated[int, Field(ge=1, lt=1 << 17)]
Id = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Activation = Annotated[str, AfterValidator(_activation)]
Epsilon = Annotated[float, Field(gt=0)]


class Axis(NamedTuple):
    """A size that a tensor has too: its name without the encoder's prefix, and the axis, which is `times` the
    size."""

    size: str
    tensor: str
    axis: int
    times: int = 1


class Configuration(BaseModel):
    """The fields of all families.

    Class attributes: `prefix` begins the names of the encoder's tensors, where they have one, and `layer`
    what follows of a layer's; `width`, `depth` and `heads` are the fields of the hidden size, the number of
    layers and that of attention heads; `axes` are the sizes that tensors have too."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    prefix: ClassVar[str] = "bert"
    layer: ClassVar[str] = "encoder.layer"
    width: ClassVar[str] = "hidden_size"
    depth: ClassVar[str] = "num_hidden_layers"
    heads: ClassVar[str] = "num_attention_heads"
    axes: ClassVar[tuple[Axis, ...]] = ()

    vocab_size: Size = 30522
    max_position_embeddings: Size = 512
    initializer_range: Annotated[float, Field(ge=0)] = 0.02
    pad_token_id: Id | None = 0
    # fields of MultiTaskFields
    num_classes_task_a: _Labels = 2
    num_labels_task_b: _Labels | None = None
    num_labels: _Labels | None = None
    classes: Annotated[list[str] | None, _by_rule("classes")] = None
    id2label: Annotated[dict[str, str] | None, _by_rule("id2label")] = None
    tag_scheme: Annotated[str | None, _by_rule("tag_scheme")] = None
    pooling: Annotated[str, _by_rule("pooling")] = "cls"
    token_head: Annotated[str, _by_rule("token_head")] = "linear"
    max_length: Annotated[int, _by_rule("max_length")] = 128
    stride: Annotated[int, _by_rule("stride")] = 32
    temperature_task_a: Annotated[float, _by_rule("temperature_task_a")] = 1.0
    temperature_task_b: Annotated[float, _by_rule("temperature_task_b")] = 1.0
