"""A model folder → a Predictor. What each kind needs is imported here: starting takes longer than a sentence
does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from multitask.common.errors import InputError

if TYPE_CHECKING:
    from multitask.inference.predictor import Predictor

LATEST_MODEL = str(Path("runs") / "latest" / "model")  # where RunFolder.save puts it


def load_predictor(
    name: str,
    model_class: Callable[[], type],
    device: str | None = None,
    several: bool = False,
    precision: str = "auto",
) -> Predictor:
    """The Predictor of a folder that training or an export left, on the device or on CUDA where it is.

    `model_class` gives MultiTaskTransformer, for a folder of training. `several` processes may share the
    work, where a launcher has started some; `precision` is that of a torch model. Raises InputError."""
    check_folder(name)
    folder = Path(name)
    from multitask.common import distributed
    from multitask.inference.predictor import Predictor

    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    if (folder / "model.onnx").exists():
        if device not in (None, "cpu"):
            raise InputError(f"--device {device}: an exported model runs on the CPU")
        if several and not alone:
            distributed.join("cpu")
        return Predictor.from_onnx(folder)
    import torch

    from multitask.common.device import choose_device
    from multitask.data.labels import labels_of
    from multitask.encoders.pretrained import load_model, load_tokenizer
    from multitask.encoders.validation import read_config

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    on = distributed.join(device) if several else choose_device(device)
    made_by = model_class()
    labels = labels_of(made_by.config_class.from_dict(read_config(folder)))
    if not (labels.classes or labels.types):
        raise InputError(f"{folder}: an encoder without trained heads; python task_4.py trains them")
    model = load_model(made_by, folder).to(on)
    return Predictor(model, load_tokenizer(folder), labels, precision)


def check_folder(name: str) -> None:
    """Raises InputError where there is no such model folder."""
    if not Path(name).is_dir():
        hint = "; python task_4.py trains one" if name == LATEST_MODEL else ""
        raise InputError(f"no folder {Path(name)}{hint}")
