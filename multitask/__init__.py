"""Sentences in; classes, entities and embeddings out, by one encoder with two heads.

>>> from multitask import Predictor
>>> Predictor.from_pretrained("runs/latest/model").predict(["Marit Solheim won in Oslo."])"""

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multitask.inference.predictor import Predictor

__all__ = ["Predictor"]

# what the package logs is shown where a script or a program asks for it
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    # imported when it is first used: importing a part of the package costs no more than that part
    if name == "Predictor":
        from multitask.inference.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
