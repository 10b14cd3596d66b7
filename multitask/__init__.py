"""One BERT encoder with two heads: predicts classes, entities and embeddings of sentences.

>>> from multitask import Predictor
>>> Predictor.from_pretrained("runs/latest/model").predict(["Marit Solheim won in Oslo."])"""

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multitask.inference.predictor import Predictor

__all__ = ["Predictor"]

# a program that configures no logging sees no messages; scripts show them (common.shell)
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> "type[Predictor]":
    # imported at first use: `import multitask` and its light modules need no torch
    if name == "Predictor":
        from multitask.inference.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
