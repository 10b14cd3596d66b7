"""A smaller encoder from some layers of a larger one (`model.keep_layers`): their configuration and weights.

A student that begins so learns faster than one with random layers (Sanh et al. 2019, §3)."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from multitask.common.errors import InputError
from multitask.encoders.family_fields import CONFIGURATIONS

Layers = int | Sequence[int] | None
T = TypeVar("T")


def chosen_layers(keep: Layers, fields: Mapping[str, Any]) -> tuple[int, ...]:
    """The numbers, from 1, of the layers that `keep` names: that many, evenly spaced, with the last one; or
    these ones; None: all.

    `fields` are those of `read_config`. Raises InputError if the encoder has no such layers, or can't do
    without its first one."""
    kind = fields["model_type"]
    count = fields[CONFIGURATIONS[kind].depth]
    if keep is None:
        return tuple(range(1, count + 1))
    if isinstance(keep, int):
        layers = tuple(-(-number * count // keep) for number in range(1, keep + 1))
    else:
        layers = tuple(keep)
    if (keep if isinstance(keep, int) else max(layers)) > count:
        raise InputError(f"model.keep_layers is {_shown(keep)}, but the encoder has {count} layers")
    if list(layers) != sorted(set(layers)):
        raise InputError(f"model.keep_layers is {_shown(keep)}: give each layer once, in rising order")
    if kind == "modernbert" and layers[0] != 1:
        raise InputError(
            f"model.keep_layers is {_shown(keep)}, which leaves out layer 1, but ModernBERT's first layer "
            "differs from the others: give a list that begins with 1"
        )
    return layers


def keep_fields(fields: dict[str, Any], keep: Layers) -> dict[str, Any]:
    """The fields of a configuration with the chosen layers alone. Raises InputError as `chosen_layers`."""
    layers = chosen_layers(keep, fields)
    depth = CONFIGURATIONS[fields["model_type"]].depth
    if len(layers) == fields[depth]:
        return fields
    kept = {**fields, depth: len(layers)}
    if fields["model_type"] == "modernbert":  # whose layers look at all tokens or at a few neighbours
        every = fields.get("global_attn_every_n_layers", 3)
        types = fields.get("layer_types") or [
            "sliding_attention" if number % every else "full_attention" for number in range(fields[depth])
        ]
        kept["layer_types"] = [types[layer - 1] for layer in layers]
    return kept


def keep_weights(weights: Mapping[str, T], fields: Mapping[str, Any], keep: Layers) -> dict[str, T]:
    """The weights, by name, of an encoder with the chosen layers alone; `fields` are the whole one's."""
    family = CONFIGURATIONS[fields["model_type"]]
    pattern = re.compile(rf"((?:{re.escape(family.prefix)}\.)?{re.escape(family.layer)}\.)(\d+)(\..*)")
    places = {layer - 1: place for place, layer in enumerate(chosen_layers(keep, fields))}
    kept = {}
    for name, weight in weights.items():
        if (match := pattern.fullmatch(name)) is None:
            kept[name] = weight
        elif (number := int(match[2])) in places:
            kept[f"{match[1]}{places[number]}{match[3]}"] = weight
    return kept


def _shown(keep: Layers) -> str:
    return str(keep if isinstance(keep, int) else [*(keep or ())])
