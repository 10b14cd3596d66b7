"""A saved model loads unchanged, and every task refuses a damaged one with one line."""

import json
from pathlib import Path

import pytest
import torch
from model_folders import edit_weights, save_trained
from safetensors.torch import load_file
from transformers import BertConfig

import task_1
import task_2
import task_4
import task_5
from model import MultiTaskTransformer
from multitask.data.labels import labels_from_config
from multitask.encoders.pretrained import load_model
from multitask.encoders.saving import save_model
from multitask.encoders.validation import read_config


@pytest.fixture
def trained(tmp_path, tiny) -> Path:
    return save_trained(tiny, tmp_path / "trained")


def test_a_saved_model_loads_unchanged(trained):
    model = load_model(MultiTaskTransformer, trained)
    weights = load_file(trained / "model.safetensors")
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    saved = json.loads((trained / "config.json").read_text())
    save_model(model, trained, trained.parent / "again")
    assert json.loads((trained.parent / "again" / "config.json").read_text()) == saved
    labels = labels_from_config(BertConfig.from_dict(read_config(trained)))
    assert (labels.classes, labels.tags) == (("a", "b"), ["O", "B-X", "I-X"])


@pytest.mark.parametrize("task", [task_1, task_2, task_4, task_5])
def test_every_task_refuses_a_damaged_model_with_one_line(shell, trained, settings_for, tmp_path, task):
    def spoil(weights):
        weights["bert.encoder.layer.0.output.dense.weight"][0, 0] = float("nan")

    edit_weights(trained, spoil)
    (tmp_path / "config.yml").write_text("model: {backbone: trained, max_length: 16, stride: 4}\n")
    overrides = [*settings_for, "model.backbone=trained", "model.max_length=16", "model.stride=4"]
    arguments = {task_4: overrides, task_5: ["predict", "a", "--model", "trained"]}.get(task, [])
    ended = shell(task, *arguments)
    assert ended.status == 2
    assert ended.err.splitlines()[-1].startswith("error: trained/model.safetensors: bert.encoder.layer.0")
    assert "Traceback" not in ended.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "SHA256SUMS", "1_Pooling/config.json"]
)
def test_a_saved_model_with_a_changed_bit_is_refused(shell, settings_for, tmp_path, name):
    assert shell(task_4, *settings_for).status == 0
    assert shell(task_5, "predict", "Anna won.", "--model", "run/model").status == 0
    with open(tmp_path / "run/model/README.md", "a") as card:
        card.write("Mine.")
    assert shell(task_5, "predict", "Anna won.", "--model", "run/model").status == 0
    file = tmp_path / "run/model" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    ended = shell(task_5, "predict", "Anna won.", "--model", "run/model")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("error: run/model") and ended.err.count("\n") == 1
