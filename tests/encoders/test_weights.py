"""Weights that are damaged, missing or made to harm end in one clear line."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from model_folders import HEADS, edit, edit_weights, load_error, save_trained
from safetensors.torch import load_file

from model import MultiTaskTransformer, SentenceTransformer
from multitask.encoders.pretrained import load_model, load_tokenizer


@pytest.fixture
def encoder(tmp_path, tiny) -> Path:
    """A copy of the tiny encoder, whose files may be changed."""
    return shutil.copytree(tiny, tmp_path / "model")


@pytest.fixture
def trained(tmp_path, tiny) -> Path:
    return save_trained(tiny, tmp_path / "trained")


class Harm:
    """Creates a folder when unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_is_never_opened(encoder, tmp_path):
    mark = tmp_path / "mark"
    with open(encoder / "pytorch_model.bin", "wb") as file:
        pickle.dump(Harm(mark), file)
    load_model(SentenceTransformer, encoder)
    load_tokenizer(encoder)
    (encoder / "model.safetensors").unlink()
    assert load_error(encoder) == (
        "model: no model.safetensors in it, so no model can be loaded; pytorch_model.bin is a "
        "pickle, which could run code and is never loaded"
    )
    assert not mark.exists()
    with open(encoder / "pytorch_model.bin", "rb") as file:
        pickle.load(file)
    assert mark.exists(), "the pickle does harm when loaded"


@pytest.mark.parametrize("content", [b"", b"x" * 7, b"\xff" * 4096, bytes(9), b"{}" * 50, "cut"])
def test_damaged_weights_are_refused(encoder, content):
    weights = encoder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] if content == "cut" else content)
    assert load_error(encoder).startswith("model/model.safetensors: can't be read: ")


def test_renamed_weights_are_not_replaced_by_random_ones(encoder):
    def rename(weights):
        for name in [name for name in weights if ".attention.self.key." in name]:
            weights[name.replace("key", "chiave")] = weights.pop(name)

    edit_weights(encoder, rename)
    for model_class, new_heads in ((SentenceTransformer, False), (MultiTaskTransformer, True)):
        message = load_error(encoder, model_class, new_heads=new_heads)
        first = "bert.encoder.layer.0.attention.self.key.bias"
        assert message == f"model/model.safetensors: 6 weights are missing, such as {first} (32,)"


def test_a_weight_of_another_shape_is_refused_unless_it_is_a_new_head(encoder, trained):
    edit(trained, classes=None, tag_scheme=None, id2label=None, label2id=None)
    assert "4 weights are missing, such as classifier.bias (4,)" in load_error(trained, **HEADS)
    load_model(MultiTaskTransformer, trained, new_heads=True, **HEADS)

    def narrow(weights):
        weights["encoder.layer.1.output.dense.weight"] = torch.zeros(32, 63)

    edit_weights(encoder, narrow)
    message = load_error(encoder, new_heads=True, **HEADS)
    assert "1 weights are missing, such as bert.encoder.layer.1.output.dense.weight (32, 64)" in message


def test_missing_heads_are_refused_without_new_heads(encoder):
    assert "4 weights are missing, such as classifier.bias" in load_error(encoder, **HEADS)
    model = load_model(MultiTaskTransformer, encoder, new_heads=True, **HEADS)
    assert model.sentence_classifier.weight.shape == (3, 32)


@pytest.mark.parametrize("head", ["sentence_classifier", "classifier"])
@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_head_with_names_but_without_weights_is_refused(trained, head, part):
    edit_weights(trained, lambda weights: weights.pop(f"{head}.{part}"))
    message = load_error(trained, new_heads=True)
    assert message.startswith(f"model/model.safetensors: no {head}.{part} of ")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(encoder, bad):
    name = "encoder.layer.2.output.dense.bias"

    def spoil(weights):
        weights[name][5] = bad

    edit_weights(encoder, spoil)
    assert f"bert.{name} has values that are not finite" in load_error(encoder, SentenceTransformer)


def test_finite_weights_load_even_if_their_sum_is_not_finite(encoder):
    edit_weights(encoder, lambda weights: weights["embeddings.LayerNorm.bias"].fill_(3e38))
    load_model(SentenceTransformer, encoder)


@pytest.mark.parametrize("elsewhere", ["/{}/other.safetensors", "../other/model.safetensors"])
def test_files_named_in_an_index_or_adapter_config_are_not_read(encoder, tiny, elsewhere):
    name = elsewhere.replace("/{}", str(tiny))
    weights = load_file(encoder / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, name)}
    (encoder / "model.safetensors.index.json").write_text(json.dumps(index))
    (encoder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": name}))
    load_model(SentenceTransformer, encoder)
    other = encoder.parent / "other"
    other.mkdir()
    shutil.move(encoder / "model.safetensors", other)
    assert "no model.safetensors in it" in load_error(encoder)


def test_files_may_be_links_as_in_the_cache_of_the_hub(encoder, tmp_path):
    for file in list(encoder.iterdir()):
        shutil.move(file, tmp_path)
        file.symlink_to(tmp_path / file.name)
    load_model(SentenceTransformer, encoder)
    load_tokenizer(encoder)
