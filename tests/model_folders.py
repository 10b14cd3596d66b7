"""Model folders and exports for tests to change, and the message with which loading one fails."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import BertConfig

from model import MultiTaskTransformer
from model_config import MultiTaskConfig
from multitask.common.checksums import CHECKSUMS, write_with_checksums
from multitask.common.errors import InputError
from multitask.encoders.pretrained import load_model
from multitask.encoders.saving import save_model

HEADS = {"num_classes_task_a": 3, "num_labels_task_b": 4}

# labels.json of the session's export, without vocab_size
EXPORTED_LABELS = {
    "classes": ["politics", "sports"],
    "tags": ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"],
    "tag_scheme": "BIO",
    "pooling": "mean",
    "max_length": 24,
    "stride": 6,
    "temperature_task_a": 2.5,
    "temperature_task_b": 0.5,
    "hidden_size": 32,
    "weights": "float32",
}


def save_trained(tiny: Path, folder: Path) -> Path:
    """Save a model with names of two classes and one type, without checksums: its files may be changed."""
    fields = {
        "classes": ["a", "b"],
        "num_classes_task_a": 2,
        "id2label": {0: "O", 1: "B-X", 2: "I-X"},
        "label2id": {"O": 0, "B-X": 1, "I-X": 2},
        "tag_scheme": "BIO",
        "max_length": 16,
        "stride": 4,
    }
    config = MultiTaskConfig(**{**BertConfig.from_pretrained(tiny).to_dict(), **fields})
    save_model(MultiTaskTransformer(config), tiny, folder)
    (folder / CHECKSUMS).unlink()
    return folder


def edit(folder: Path, **fields) -> None:
    """Set fields of config.json; a field set to ... is removed."""
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **fields}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def edit_weights(folder: Path, change) -> None:
    weights = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def load_error(folder: Path, model_class=MultiTaskTransformer, **fields) -> str:
    """The one-line message with which loading a folder fails, with "model" in place of its path."""
    with pytest.raises(InputError) as error:
        load_model(model_class, folder, **fields)
    message = str(error.value)
    assert str(folder) in message
    assert "\n" not in message
    return message.replace(str(folder), "model")


def copy_export(folder: Path, target: Path, **changed: bytes) -> Path:
    """Copy an export with other contents of some files and matching checksums."""
    files = {f.name: f.read_bytes() for f in folder.iterdir() if f.name != CHECKSUMS} | changed
    write_with_checksums(target, ((name, [content]) for name, content in files.items()))
    return target
