"""config.json and labels.json follow the same rules."""

import json

import pytest
from model_folders import EXPORTED_LABELS, edit, load_error, save_trained

from model import POOLINGS
from multitask.common.errors import InputError
from multitask.encoders.prediction_fields import RULES
from multitask.encoders.validation import read_config
from multitask.inference.onnx_runner import LABELS, read_labels


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


def test_a_whole_number_is_a_temperature(trained):
    edit(trained, temperature_task_a=2)
    assert read_config(trained)["temperature_task_a"] == 2.0
