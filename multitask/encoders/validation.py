"""Checks of a model folder's config.json and weights before a model is built from them.

A folder may have been downloaded: it is data, and no code in it runs. Only some fields are read from
config.json, weights only from model.safetensors, and the two must agree."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from multitask.common.errors import InputError, list_problems
from multitask.common.strict_json import RepeatedKey, loads
from multitask.data.corpus import window_problem
from multitask.encoders.config_fields import Configuration
from multitask.encoders.family_fields import CONFIGURATIONS

if TYPE_CHECKING:
    from torch import Tensor, nn

_MAX_JSON = 16 << 20  # bytes; the names of thousands of labels take a hundred thousand
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def read_config(folder: str | Path) -> dict[str, Any]:
    """A folder's config.json → the fields that are read, as `from_dict` takes them; sizes also where they
    are defaults.

    Raises InputError if no such encoder is supported, if a field is not valid, and if two contradict."""
    file = Path(folder) / "config.json"
    values = read_json(file, "so it is no model folder")
    # the first published BERTs have no model_type; the check of the weights covers them
    kind = values.get("model_type", "bert")
    if not isinstance(kind, str) or kind not in CONFIGURATIONS:
        raise InputError(
            f"{folder}: its model_type is {kind!r}; supported encoders are {', '.join(CONFIGURATIONS)}"
        )
    try:
        c = CONFIGURATIONS[kind].model_validate(values)
    except ValidationError as error:
        problems = [
            f"{file}: {'.'.join(map(str, item['loc']))}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        ]
        raise InputError(list_problems(problems)) from None
    if problems := [f"{file}: {text}" for text in _contradictions(c)]:
        raise InputError(list_problems(problems))
    fields = c.model_dump(exclude_unset=True, exclude={"position_embedding_type"})
    fields |= {key: getattr(c, key) for key in ("max_position_embeddings", *(axis.size for axis in c.axes))}
    fields["model_type"] = kind
    if c.id2label:
        fields["id2label"] = {int(key): name for key, name in c.id2label.items()}
        fields["label2id"] = {name: key for key, name in fields["id2label"].items()}
    return fields


def read_json(file: Path, missing: str) -> dict[str, Any]:
    """Read a JSON file that holds one object; `missing` ends the message if there is no such file.

    Raises InputError for any other content, and if the object asks for code of its own to run."""
    if not file.is_file():
        raise InputError(f"{file.parent}: no {file.name} in it, {missing}")
    if (size := file.stat().st_size) > _MAX_JSON:
        raise InputError(f"{file}: {size:,} bytes; a configuration has at most {_MAX_JSON:,}")
    try:
        values = loads(file.read_bytes())
    except RepeatedKey as error:
        raise InputError(f"{file}: {error}") from None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise InputError(f"{file}: not a model's configuration")
    if "auto_map" in values:
        raise InputError(f"{file}: asks to run the model's own code (auto_map), which is never run")
    return values


def read_weights(folder: str | Path, config: dict[str, Any]) -> dict[str, "Tensor"]:
    """Memory-map the tensors of model.safetensors and compare them with the fields of `read_config`.

    Raises InputError if their sizes differ, if a head with names has no weights, and if there is no such
    file: other formats, above all pickles, are never loaded."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = Path(folder) / "model.safetensors"
    if not file.is_file():
        pickles = sorted(path.name for pattern in _PICKLES for path in Path(folder).glob(pattern))
        why = f"; {pickles[0]} is a pickle, which could run code and is never loaded" if pickles else ""
        raise InputError(f"{folder}: no {file.name} in it, so no model can be loaded{why}")
    try:
        weights = load_file(file)
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise InputError(f"{file}: can't be read: {' '.join(str(error).split())[:300]}") from None
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    # the first mismatch is enough: where one size differs, most do
    if mismatch := next(_mismatches(config, shapes), None):
        raise InputError(f"{file}: {mismatch}")
    return weights


def check_finite(model: "nn.Module", file: Path) -> None:
    """Raises InputError if a weight of a model loaded from `file` is NaN or infinite."""
    for name, weight in model.named_parameters():
        # the sum is not finite if a term is not, and takes an eighth of the time of testing each weight
        if not weight.sum().isfinite() and not weight.isfinite().all():
            raise InputError(f"{file}: {name} has values that are not finite; its training diverged")


def _contradictions(c: Configuration) -> Iterator[str]:
    """Problems of several fields together."""
    width, heads = getattr(c, c.width), getattr(c, c.heads)
    if width % heads:
        yield f"{c.width} is {width}, no multiple of {c.heads}, {heads}"
    types = getattr(c, "layer_types", None)
    if types is not None and len(types) != (depth := getattr(c, c.depth)):
        yield f"layer_types has {len(types)} entries, but {c.depth} is {depth}"
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


def _mismatches(config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> Iterator[str]:
    """Differences between the shapes of the stored tensors and a configuration."""
    from token_heads import CRF_HEADS, WINDOW

    c = CONFIGURATIONS[config["model_type"]].model_construct(**config)
    encoder_shapes = {name.removeprefix(f"{c.prefix}."): shape for name, shape in shapes.items()}
    numbers = (re.match(rf"{re.escape(c.layer)}\.(\d+)\.", name) for name in encoder_shapes)
    layers = len({match[1] for match in numbers if match})
    if layers != (expected := getattr(c, c.depth)):
        yield f"has weights of {layers} layers, but {c.depth} in config.json is {expected}"
        return
    for size, name, axis, times in c.axes:
        shape = encoder_shapes.get(name, ())
        if len(shape) != 2:
            yield f"no matrix {name}, so it is no {config['model_type']} encoder"
        elif shape[axis] != times * getattr(c, size):
            yield f"{name} is {shape[0]} × {shape[1]}, but {size} in config.json is {getattr(c, size)}"
    inputs = width = getattr(c, c.width)
    if c.token_head == "window_crf":
        inputs *= WINDOW
    elif c.token_head != "linear" and c.tag_scheme:
        name = "token_convolution.projection.weight"
        if len(shape := shapes.get(name, ())) != 2:
            yield f"no matrix {name}, although token_head in config.json is {c.token_head}"
            return
        inputs = shape[0]
    if c.token_head in CRF_HEADS and c.tag_scheme:
        tags, name = len(c.id2label or {}), "transitions.weight"
        if shapes.get(name) != (tags, tags):
            yield f"no {name} of {tags} × {tags}, although token_head in config.json is {c.token_head}"
    heads = (
        ("sentence_classifier", c.classes, width),
        ("classifier", c.tag_scheme and c.id2label, inputs),
    )
    for head, names, size in heads:
        if names and shapes.get(f"{head}.weight") != (len(names), size):
            yield f"no {head}.weight of {len(names)} × {size}, although config.json names its labels"
        if names and shapes.get(f"{head}.bias") != (len(names),):
            yield f"no {head}.bias of {len(names)}, although config.json names its labels"
