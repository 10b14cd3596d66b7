"""config.json and labels.json follow the same rules."""

import json
from typing import get_args

import pytest
from model_folders import EXPORTED_LABELS, edit, load_error, save_trained

from model_config import POOLINGS
from multitask.common.errors import InputError
from multitask.config.schema import ModelSettings
from multitask.encoders.prediction_fields import RULES
from multitask.encoders.validation import read_config
from multitask.inference.onnx_runner import LABELS, read_labels
from token_heads import TOKEN_HEADS


@pytest.fixture
def trained(tmp_path, tiny):
    return save_trained(tiny, tmp_path / "trained")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classes", []),
        ("classes", ["a", ""]),
        ("classes", ["a", "\ud800"]),
        ("tag_scheme", ["IO"]),
        ("pooling", None),
        ("max_length", 3),
        ("max_length", 16.0),
        ("stride", True),
        ("temperature_task_a", -1),
        ("temperature_task_b", 10**400),
    ],
)
def test_both_files_refuse_a_value_with_the_same_message(trained, tmp_path, name, value):
    edit(trained, **{name: value})
    message = load_error(trained)
    assert message == f"model/config.json: {name}: is not {RULES[name].meaning}"
    file = tmp_path / LABELS
    file.write_text(json.dumps({**EXPORTED_LABELS, "vocab_size": 100, name: value}))
    with pytest.raises(InputError) as error:
        read_labels(file)
    assert str(error.value) == message.replace("model/config.json", str(file))


def test_poolings_are_those_of_the_model():
    assert [name for name in (*POOLINGS, "max") if RULES["pooling"].is_valid(name)] == list(POOLINGS)


def test_token_heads_are_those_of_the_model_and_of_the_settings():
    assert [name for name in (*TOKEN_HEADS, "lstm") if RULES["token_head"].is_valid(name)] == [*TOKEN_HEADS]
    assert get_args(ModelSettings.model_fields["token_head"].annotation) == ("auto", *TOKEN_HEADS)


def test_a_whole_number_is_a_temperature(trained):
    edit(trained, temperature_task_a=2)
    assert read_config(trained)["temperature_task_a"] == 2.0
