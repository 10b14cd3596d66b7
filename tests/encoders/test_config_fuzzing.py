"""Arbitrary and mutated config.json files of a model are read or refused.

The property is tried with a few examples, and with ten thousand under `-m exhaustive`."""

import json
from pathlib import Path

import pytest
from fuzzing import VALUES, examples, exhaustive, mutated, result_or_none
from hypothesis import given
from hypothesis import strategies as st

from model import MultiTaskTransformer
from model_config import MultiTaskConfig
from multitask.common.checksums import CHECKSUMS
from multitask.data.labels import labels_from_config
from multitask.encoders.pretrained import load_model
from multitask.encoders.saving import save_model


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory) -> Path:
    """The folder of a trained model, whose config.json each example replaces."""
    folder = tmp_path_factory.mktemp("fuzzed") / "model"
    config = json.loads((tiny / "config.json").read_text())
    names = {"id2label": {0: "O", 1: "X"}, "label2id": {"O": 0, "X": 1}, "tag_scheme": "IO"}
    model = MultiTaskConfig(**{**config, **names, "classes": ["a", "b"], "max_length": 16, "stride": 4})
    save_model(MultiTaskTransformer(model), tiny, folder)
    (folder / CHECKSUMS).unlink()
    (folder / "valid.json").write_bytes((folder / "config.json").read_bytes())
    return folder


def check_model_config(folder: Path, data) -> None:
    valid = (folder / "valid.json").read_bytes()
    config = json.loads(valid)
    fields = st.sampled_from([*config, "num_labels", "auto_map", "per_layer_config", "quantization_config"])
    changed = st.dictionaries(fields, VALUES, max_size=2).map(
        lambda change: json.dumps({**config, **change}).encode()
    )
    (folder / "config.json").write_bytes(data.draw(st.binary(max_size=60) | mutated(valid) | changed))
    model = result_or_none(load_model, MultiTaskTransformer, folder)
    labels = None if model is None else result_or_none(labels_from_config, model.config)
    if labels is not None:
        sizes = len(model.sentence_classifier.bias), len(model.classifier.bias)
        assert not labels.classes or len(labels.classes) == sizes[0]
        assert not labels.types or len(labels.tags) == sizes[1]


@examples(60)
@given(st.data())
def test_model_config_is_read_or_refused(trained, data):
    check_model_config(trained, data)


@exhaustive
@given(st.data())
def test_model_config_is_read_or_refused_exhaustively(trained, data):
    check_model_config(trained, data)
