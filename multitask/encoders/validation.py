"""What a model folder says of itself, checked before anything is built from it.

A folder may have been downloaded: it is data, and none of it runs. Only the fields below are read from its
config.json, only model.safetensors holds weights, and the two must agree."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from multitask.common.errors import InputError, list_problems
from multitask.common.strict_json import RepeatedKey, loads
from multitask.data.corpus import window_problem

_LARGEST = 16 << 20  # bytes of a JSON file; thousands of labels are a hundred thousand
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
# where the weights show each size of the encoder: a tensor's name, without bert., and its axis
_SHOWN = {
    "vocab_size": ("embeddings.word_embeddings.weight", 0),
    "hidden_size": ("embeddings.word_embeddings.weight", 1),
    "max_position_embeddings": ("embeddings.position_embeddings.weight", 0),
    "type_vocab_size": ("embeddings.token_type_embeddings.weight", 0),
    "intermediate_size": ("encoder.layer.0.intermediate.dense.weight", 0),
}


def _activation(name: str) -> str:
    from transformers.activations import ACT2FN

    if name not in ACT2FN:
        raise ValueError(f"there is no activation {name!r}")
    return name


def _ids(labels: dict[str, str]) -> dict[str, str]:
    if set(labels) != {str(i) for i in range(len(labels))}:
        raise ValueError(f"its keys are not the numbers from 0 to {len(labels) - 1}")
    return labels


def _distinct(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("a name stands twice")
    return names


_Size = Annotated[int, Field(ge=1, lt=1 << 24)]
_Labels = Annotated[int, Field(ge=1, lt=1 << 17)]
_Share = Annotated[float, Field(ge=0, lt=1)]
_Temperature = Annotated[float, Field(gt=0)]
_Name = Annotated[str, Field(min_length=1)]


class _Configuration(BaseModel):
    """Fields of config.json that are read, with BertConfig's defaults. Others have no effect."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    vocab_size: _Size = 30522
    hidden_size: _Size = 768
    num_hidden_layers: _Size = 12
    num_attention_heads: _Size = 12
    intermediate_size: _Size = 3072
    max_position_embeddings: _Size = 512
    type_vocab_size: _Size = 2
    hidden_act: Annotated[str, AfterValidator(_activation)] = "gelu"
    hidden_dropout_prob: _Share = 0.1
    attention_probs_dropout_prob: _Share = 0.1
    initializer_range: Annotated[float, Field(ge=0)] = 0.02
    layer_norm_eps: Annotated[float, Field(gt=0)] = 1e-12
    pad_token_id: Annotated[int, Field(ge=0)] | None = 0
    position_embedding_type: Literal["absolute"] = "absolute"
    # of MultiTaskConfig
    num_classes_task_a: _Labels = 2
    num_labels_task_b: _Labels | None = None
    num_labels: _Labels | None = None
    classes: Annotated[list[_Name], Field(min_length=1), AfterValidator(_distinct)] | None = None
    id2label: Annotated[dict[str, _Name], Field(min_length=1), AfterValidator(_ids)] | None = None
    tag_scheme: Literal["IO", "BIO"] | None = None
    pooling: Literal["cls", "mean"] = "cls"
    max_length: Annotated[int, Field(ge=4)] = 128
    stride: Annotated[int, Field(ge=0)] = 32
    temperature_task_a: _Temperature = 1.0
    temperature_task_b: _Temperature = 1.0


def read_config(folder: str | Path) -> dict[str, Any]:
    """The fields of a folder's config.json that are read, as from_dict wants them, and all sizes.

    Raises InputError where it is no BERT's, where a field can't be, and where two fields are at odds."""
    file = Path(folder) / "config.json"
    values = read_json(file, "so it is no model")
    # the first BERTs that were published say nothing of their kind; their weights are looked at all the same
    kind = values.get("model_type", "bert")
    if kind != "bert":
        raise InputError(
            f"{folder}: its model_type is {kind!r}; only BERT encoders (model_type 'bert') are supported"
        )
    try:
        c = _Configuration.model_validate(values)
    except ValidationError as error:
        problems = [
            f"{file}: {'.'.join(map(str, item['loc']))}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        ]
        raise InputError(list_problems(problems)) from None
    if problems := [f"{file}: {text}" for text in _at_odds(c)]:
        raise InputError(list_problems(problems))
    fields = c.model_dump(exclude_unset=True, exclude={"position_embedding_type"})
    fields |= {key: getattr(c, key) for key in _SHOWN}
    if c.id2label:
        fields["id2label"] = {int(key): name for key, name in c.id2label.items()}
        fields["label2id"] = {name: key for key, name in fields["id2label"].items()}
    return fields


def read_json(file: Path, missing: str) -> dict[str, Any]:
    """A JSON file that is one object. Raises InputError; also where it asks for code of its own."""
    if not file.is_file():
        raise InputError(f"{file.parent}: no {file.name} in it, {missing}")
    if (size := file.stat().st_size) > _LARGEST:
        raise InputError(f"{file}: {size:,} bytes; a configuration has at most {_LARGEST:,}")
    try:
        values = loads(file.read_bytes())
    except RepeatedKey as error:
        raise InputError(f"{file}: {error}") from None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise InputError(f"{file}: not a model's configuration")
    if "auto_map" in values:
        raise InputError(f"{file}: asks for code of the model's own (auto_map), which is never run")
    return values


def read_weights(folder: str | Path, config: dict[str, Any]) -> dict:
    """The tensors of model.safetensors, mapped, not yet read, which fit the fields of `read_config`.

    Raises InputError where they are of another size, where they lack a head that the configuration has names
    for, and where there are none: other formats, pickles above all, are never loaded."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = Path(folder) / "model.safetensors"
    if not file.is_file():
        others = sorted(path.name for kind in _PICKLES for path in Path(folder).glob(kind))
        why = f"; {others[0]} is a pickle, which could run code and is never loaded" if others else ""
        raise InputError(f"{folder}: no {file.name} in it, so it is no model that can be loaded{why}")
    try:
        weights = load_file(file)
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise InputError(f"{file}: can't be read: {' '.join(str(error).split())[:300]}") from None
    # one stands for all: where a size is another, so are most
    if misfit := next(_misfits(config, {name: tuple(each.shape) for name, each in weights.items()}), None):
        raise InputError(f"{file}: {misfit}")
    return weights


def check_finite(model, file: Path) -> None:
    """Raises InputError for weights that are NaN or infinite: whatever they touch is NaN too."""
    for name, weight in model.named_parameters():
        # a sum is not finite where one of its terms is not, and takes an eighth of the time of seeing each
        if not weight.sum().isfinite() and not weight.isfinite().all():
            raise InputError(f"{file}: {name} holds numbers that are not finite; its training diverged")


def _at_odds(c: _Configuration) -> Iterator[str]:
    """What single fields can't show."""
    if c.hidden_size % c.num_attention_heads:
        yield f"hidden_size is {c.hidden_size}, no multiple of num_attention_heads, {c.num_attention_heads}"
    if (c.pad_token_id or 0) >= c.vocab_size:
        yield f"pad_token_id is {c.pad_token_id}, but vocab_size is {c.vocab_size}"
    if c.classes and len(c.classes) != c.num_classes_task_a:
        yield f"num_classes_task_a is {c.num_classes_task_a}, but classes has {len(c.classes)} names"
    for key in ("num_labels", "num_labels_task_b"):
        size = getattr(c, key)
        if size is not None and c.id2label and size != len(c.id2label):
            yield f"{key} is {size}, but id2label has {len(c.id2label)} entries"
    if c.tag_scheme and not c.id2label:
        yield f"tag_scheme is {c.tag_scheme}, but there is no id2label"
    if "max_length" in c.model_fields_set and c.max_length > c.max_position_embeddings:
        yield f"max_length is {c.max_length}, but max_position_embeddings is {c.max_position_embeddings}"
    if problem := window_problem(c.max_length, c.stride):
        yield f"stride is {c.stride}; with max_length {c.max_length} {problem}"


def _misfits(config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> Iterator[str]:
    """Where the shapes of a file's tensors are not those of a configuration."""
    c = _Configuration.model_construct(**config)
    of_encoder = {name.removeprefix("bert."): shape for name, shape in shapes.items()}
    numbers = (re.match(r"encoder\.layer\.(\d+)\.", name) for name in of_encoder)
    layers = len({match[1] for match in numbers if match})
    if layers != c.num_hidden_layers:
        yield f"weights of {layers} layers, but num_hidden_layers in config.json is {c.num_hidden_layers}"
        return
    for key, (name, axis) in _SHOWN.items():
        shape = of_encoder.get(name, ())
        if len(shape) != 2:
            yield f"no matrix {name}, so it is no BERT"
        elif shape[axis] != getattr(c, key):
            yield f"{name} is {shape[0]} × {shape[1]}, but {key} in config.json is {getattr(c, key)}"
    named = {"sentence_classifier": c.classes, "classifier": c.tag_scheme and c.id2label}
    for head, names in named.items():
        if names and shapes.get(f"{head}.weight") != (len(names), c.hidden_size):
            yield f"no {head}.weight of {len(names)} × {c.hidden_size}, as config.json has names for"
        if names and shapes.get(f"{head}.bias") != (len(names),):
            yield f"no {head}.bias of {len(names)}, as config.json has names for"
