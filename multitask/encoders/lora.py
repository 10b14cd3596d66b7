"""Low-rank adapters (LoRA, Hu et al. 2022) in the encoder, and merging them into its weights."""

import copy
import re
from typing import TYPE_CHECKING, TypeVar

from families import Family, part
from multitask.config.schema import LoraSettings

if TYPE_CHECKING:
    from model import SentenceTransformer

Model = TypeVar("Model", bound="SentenceTransformer")


def add_lora(model: "SentenceTransformer", settings: LoraSettings) -> None:
    """Add adapters to the encoder's unfrozen layers, in place, and freeze all other weights of the encoder.

    Call `model.freeze` before. An adapter is a random matrix, drawn from torch's generator, times a zero
    matrix: outputs do not change at first. Dropout runs in layers with adapters only."""
    from peft import LoraConfig, inject_adapter_in_model

    family, encoder = model.config.family, model.base_model
    layers = [
        str(number)
        for number, layer in enumerate(part(encoder, family.layers))
        if any(parameter.requires_grad for parameter in layer.parameters())
    ]
    modules = {re.escape(name) for target in settings.targets for name in family.lora[target]}
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft takes any number
        lora_dropout=settings.dropout,
        target_modules=rf"{re.escape(family.layers)}\.({'|'.join(layers)})\.({'|'.join(sorted(modules))})",
    )
    inject_adapter_in_model(config, encoder)
    model.train(model.training)


def shared_matrices(family: Family, settings: LoraSettings) -> list[str]:
    """A warning for each matrix of the family that also does the work of parts that `targets` leaves out."""
    warnings = {}
    for target in settings.targets if settings.rank else ():
        for path in family.lora[target]:
            parts = [name for name, paths in family.lora.items() if path in paths]
            if missing := [name for name in parts if name not in settings.targets]:
                warnings[path] = (
                    f"warning: {family.name} has one matrix for {', '.join(parts)}: its adapter also changes "
                    f"{' and '.join(missing)}, which model.lora.targets leaves out"
                )
    return list(warnings.values())


def merge_lora(model: Model) -> Model:
    """A copy without adapters, which has W + alpha / rank · B A in place of each adapted W.

    The model itself does not change and can continue training. Without adapters, returns the model itself."""
    if not hasattr(model.base_model, "peft_config"):
        return model
    from peft.tuners.lora import LoraLayer

    merged = copy.deepcopy(model)
    adapted = [(name, module) for name, module in merged.named_modules() if isinstance(module, LoraLayer)]
    for name, module in adapted:
        module.merge()
        merged.set_submodule(name, module.get_base_layer())
    del merged.base_model.peft_config
    return merged
