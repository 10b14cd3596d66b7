"""A config.json with invalid or contradictory fields ends in one clear line."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from model_folders import edit, load_error, save_trained

from model import SentenceTransformer
from multitask.common.errors import InputError
from multitask.encoders.pretrained import find_backbone, load_model


@pytest.fixture
def encoder(tmp_path, tiny) -> Path:
    """A copy of the tiny encoder, whose files may be changed."""
    return shutil.copytree(tiny, tmp_path / "model")


@pytest.fixture
def trained(tmp_path, tiny) -> Path:
    return save_trained(tiny, tmp_path / "trained")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"hidden_size": "x"}, "hidden_size: Input should be a valid integer"),
        ({"hidden_size": -1}, "hidden_size: Input should be greater"),
        ({"hidden_size": None}, "hidden_size: Input should be a valid integer"),
        ({"hidden_size": True}, "hidden_size: Input should be a valid integer"),
        ({"hidden_size": 64}, "word_embeddings.weight is 160 × 32, but hidden_size in config.json is 64"),
        ({"num_attention_heads": 5}, "hidden_size is 32, no multiple of num_attention_heads, 5"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers: Input should be less"),
        ({"num_hidden_layers": 100}, "weights of 3 layers, but num_hidden_layers in config.json is 100"),
        ({"num_hidden_layers": 2}, "weights of 3 layers, but num_hidden_layers in config.json is 2"),
        ({"intermediate_size": 10**7}, "intermediate.dense.weight is 64 × 32, but intermediate_size"),
        ({"vocab_size": 10**7}, "but vocab_size in config.json is 10000000"),
        ({"max_position_embeddings": 512}, "but max_position_embeddings in config.json is 512"),
        ({"type_vocab_size": 1}, "but type_vocab_size in config.json is 1"),
        ({"pad_token_id": 160}, "pad_token_id is 160, but vocab_size is 160"),
        ({"hidden_act": "gulu"}, "unknown activation 'gulu'"),
        ({"hidden_act": ["gelu"]}, "hidden_act: Input should be a valid string"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps: Input should be a finite number"),
        ({"hidden_dropout_prob": 2}, "hidden_dropout_prob: Input should be less than 1"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type: Input should be 'absolute'"),
        ({"model_type": ["bert"]}, "model_type is ['bert']; supported encoders are bert, roberta"),
        ({"auto_map": {"AutoModel": "modeling.Bert"}}, "asks to run the model's own code (auto_map)"),
        ({"num_labels": 10**9}, "num_labels: Input should be less"),
        ({"classes": ["a", "b", "c"]}, "num_classes_task_a is 2, but classes has 3 names"),
        ({"classes": ["a", "a"]}, "classes: is not a list of different names, or null"),
        ({"classes": "ab"}, "classes: is not a list of different names, or null"),
        ({"classes": ["a", "\ud800"]}, "classes: is not a list of different names, or null"),
        ({"classes": ["a", "b", "c"], "num_classes_task_a": 3}, "no sentence_classifier.weight of 3 × 32"),
        ({"id2label": {"0": "O", "x": "B-X", "2": "I-X"}}, "id2label: is not an object with the names"),
        ({"id2label": {"0": "O", "1": "B-X", "3": "I-X"}}, "id2label: is not an object with the names"),
        ({"id2label": {"0": "O", "1": "B-X", "01": "I-X"}}, "id2label: is not an object with the names"),
        ({"id2label": ["O"]}, "id2label: is not an object with the names"),
        ({"id2label": {"0": 0}}, "id2label: is not an object with the names"),
        ({"id2label": {"0": "O", "1": "B-X"}}, "num_labels_task_b is 3, but id2label has 2 entries"),
        ({"id2label": None}, "tag_scheme is BIO, but there is no id2label"),
        ({"id2label": {"0": "O", "1": "B-X"}, "num_labels_task_b": 2}, "no classifier.weight of 2 × 32"),
        ({"tag_scheme": "BILOU"}, "tag_scheme: is not one of IO, BIO, null"),
        ({"token_head": "lstm"}, "token_head: is not one of linear, convolution, window_crf"),
        ({"token_head": "convolution_crf"}, "no matrix token_convolution.projection.weight, although"),
        ({"token_head": "window_crf"}, "no transitions.weight of 3 × 3, although token_head"),
        ({"token_head": "convolution"}, "no matrix token_convolution.projection.weight, although token_head"),
        ({"pooling": "max"}, "pooling: is not one of cls, mean"),
        ({"max_length": 65}, "max_length is 65, but max_position_embeddings is 64"),
        ({"temperature_task_a": 0}, "temperature_task_a: is not a finite number above 0"),
        ({"temperature_task_b": float("inf")}, "temperature_task_b: is not a finite number above 0"),
        ({"temperature_task_b": "1"}, "temperature_task_b: is not a finite number above 0"),
        ({"max_length": 16, "stride": 14}, "stride is 14; with max_length 16 it must be below 14"),
    ],
)  # fmt: skip
def test_invalid_configurations_are_refused(trained, fields, reason):
    edit(trained, **fields)
    assert reason in load_error(trained)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a model's configuration"),
        (b"[1]", "not a model's configuration"),
        (b"[" * 20_000, "not a model's configuration"),
        (b'{"a":' * 20_000, "not a model's configuration"),
        (b'{"model_type": "bert", "hidden_size": ' + b"9" * 5000 + b"}", "not a model's configuration"),
        (b'{"model_type": "\xff"}', "not a model's configuration"),
        (b'{"model_type": "gpt", "model_type": "bert"}', "the key 'model_type' stands twice"),
        (b" " * (16 << 20) + b"{}", "a configuration has at most"),
        (None, "no config.json in it"),
        ("fifo", "no config.json in it"),
    ],
)
def test_a_file_that_is_not_a_configuration_is_refused(encoder, content, reason):
    file = encoder / "config.json"
    file.unlink()
    if content == "fifo":
        os.mkfifo(file)
    elif content is not None:
        file.write_bytes(content)
    for find in (lambda: find_backbone(str(encoder)), lambda: load_model(SentenceTransformer, encoder)):
        with pytest.raises(InputError, match=reason.replace("(", r"\(")):
            find()


def test_fields_that_are_not_read_have_no_effect(encoder):
    plain = load_model(SentenceTransformer, encoder)
    elsewhere = {
        "transformers_weights": "../other.safetensors",
        "quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True},
        "attn_implementation": "someone/kernels",
        "per_layer_config": {"0": {"hidden_size": 8}},
        "is_decoder": True,
        "dtype": "nonsense",
        "_name_or_path": "/elsewhere",
    }
    edit(encoder, **elsewhere)
    model = load_model(SentenceTransformer, encoder)
    assert model.config.to_dict() == plain.config.to_dict()
    ids = torch.arange(10, 20)[None]
    assert torch.equal(model.eval()(ids), plain.eval()(ids))
