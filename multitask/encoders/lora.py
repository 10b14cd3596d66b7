"""Low-rank adapters (LoRA, Hu et al. 2022) in the encoder, and merging them into its weights."""

import copy
import re
from typing import TYPE_CHECKING, TypeVar, cast

from torch import nn

from multitask.config.schema import LoraSettings

if TYPE_CHECKING:
    from transformers import BertModel

Model = TypeVar("Model", bound=nn.Module)

_MODULES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
}


def add_lora(model: nn.Module, settings: LoraSettings) -> None:
    """Add adapters to the encoder's unfrozen layers, in place, and freeze all other weights of the encoder.

    Call `model.freeze` before. An adapter is a random matrix, drawn from torch's generator, times a zero
    matrix: outputs do not change at first. Dropout runs in layers with adapters only."""
    from peft import LoraConfig, inject_adapter_in_model

    encoder = cast("BertModel", model.bert)
    layers = [
        str(number)
        for number, layer in enumerate(encoder.encoder.layer)
        if any(parameter.requires_grad for parameter in layer.parameters())
    ]
    modules = [re.escape(_MODULES[target]) for target in settings.targets]
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft takes any number
        lora_dropout=settings.dropout,
        target_modules=rf"encoder\.layer\.({'|'.join(layers)})\.({'|'.join(modules)})",
    )
    inject_adapter_in_model(config, encoder)
    model.train(model.training)


def merge_lora(model: Model) -> Model:
    """A copy without adapters, which has W + alpha / rank · B A in place of each adapted W.

    The model itself does not change and can continue training. Without adapters, returns the model itself."""
    if not hasattr(model.bert, "peft_config"):
        return model
    from peft.tuners.lora import LoraLayer

    merged = copy.deepcopy(model)
    adapted = [(name, module) for name, module in merged.named_modules() if isinstance(module, LoraLayer)]
    for name, module in adapted:
        module.merge()
        merged.set_submodule(name, module.get_base_layer())
    del merged.bert.peft_config  # type: ignore[union-attr]  # a module; peft adds the attribute
    return merged
