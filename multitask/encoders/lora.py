"""Low-rank adapters in the encoder, and the plain model that they amount to. Hu et al. 2022."""

import copy
import importlib.util
import re

from torch import nn

from multitask.common.errors import InputError
from multitask.config.schema import LoraSettings

_MODULES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
}


def check_peft(settings: LoraSettings) -> None:
    """Raises InputError where adapters are wanted, but the package that makes them is not installed."""
    if settings.rank and importlib.util.find_spec("peft") is None:
        raise InputError("model.lora needs peft: pip install -r requirements-lora.txt")


def add_lora(model: nn.Module, settings: LoraSettings) -> None:
    """Put adapters into the encoder's layers that train, and freeze all of the encoder but them.

    `model.freeze` comes before it: the layers that it froze get none. An adapter is the product of a random
    matrix, drawn from torch's generator, and one of zeros: the model says what it said before.
    A layer with adapters is one that trains, so its dropout runs as in fine-tuning; the embeddings and the
    frozen layers run without."""
    from peft import LoraConfig, inject_adapter_in_model

    layers = [
        str(number)
        for number, layer in enumerate(model.bert.encoder.layer)
        if any(parameter.requires_grad for parameter in layer.parameters())
    ]
    modules = [re.escape(_MODULES[target]) for target in settings.targets]
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=rf"encoder\.layer\.({'|'.join(layers)})\.({'|'.join(modules)})",
    )
    inject_adapter_in_model(config, model.bert)
    model.train(model.training)


def merge_lora(model: nn.Module) -> nn.Module:
    """A copy with W + alpha / rank · B A for each adapted W, and no adapters: what is saved and used.

    The model itself is left as it is, and goes on training. One without adapters is given back, uncopied."""
    if not hasattr(model.bert, "peft_config"):
        return model
    from peft.tuners.lora import LoraLayer

    plain = copy.deepcopy(model)
    adapted = [(name, module) for name, module in plain.named_modules() if isinstance(module, LoraLayer)]
    for name, module in adapted:
        module.merge()
        plain.set_submodule(name, module.get_base_layer())
    del plain.bert.peft_config
    return plain
