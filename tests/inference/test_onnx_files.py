"""Exports with damaged, invalid or unmatched files are refused."""

import json
import re
import sys

import pytest
from model_folders import EXPORTED_LABELS, copy_export

from multitask.common.errors import InputError
from multitask.inference.onnx_runner import LABELS, MODEL, OnnxModel, read_labels
from multitask.inference.predictor import Predictor


def test_a_changed_bit_is_noticed(exported, tmp_path):
    folder = exported.folder
    copy_export(folder, tmp_path / "other")
    content = bytearray((folder / MODEL).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "other" / MODEL).write_bytes(content)
    with pytest.raises(InputError, match="model.onnx is not what was written; export the model again"):
        OnnxModel(tmp_path / "other")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"classes": "xyz"}, "classes: is not a list of different names, or null"),
        ({"classes": ["x", "x"]}, "classes: is not"),
        ({"tags": []}, "tags: is not a list of different names"),
        ({"tags": [["O"]]}, "tags: is not"),
        ({"tag_scheme": "BIOES"}, "tag_scheme: is not one of IO, BIO, null"),
        ({"pooling": ["cls"]}, "pooling: is not one of cls, mean"),
        ({"max_length": 3}, "max_length: is not a whole number from 4"),
        ({"stride": True}, "stride: is not a whole number from 0"),
        ({"max_length": 8}, "stride: 6, but it must be below 6"),
        ({"stride": -1}, "stride: is not a whole number from 0"),
        ({"temperature_task_a": 0}, "temperature_task_a: is not a finite number above 0"),
        ({"temperature_task_b": float("nan")}, "temperature_task_b: is not"),
        ({"temperature_task_b": float("inf")}, "temperature_task_b: is not"),
        ({"weights": "int4"}, "weights: is not one of float32, int8"),
        ({"transitions": [[1.0], [2.0]]}, "transitions: is not a square matrix"),
        ({"transitions": [[1.0, "x"], [2.0, 3.0]]}, "transitions: is not a square matrix"),
        ({"transitions": [[float("inf")]]}, "transitions: is not a square matrix"),
        ({"transitions": [[1.0]]}, "transitions: has 1 rows, but there are"),
        ({"hidden": 3}, "hidden: unknown key"),
        ({"vocab_size": ...}, "vocab_size: is missing"),
    ],
)
def test_invalid_labels_are_refused(tmp_path, changed, reason):
    values = {**EXPORTED_LABELS, "vocab_size": 100, **changed}
    values = {name: value for name, value in values.items() if value is not ...}
    (tmp_path / LABELS).write_text(json.dumps(values))
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / LABELS}: {reason}")) as error:
        read_labels(tmp_path / LABELS)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[]", "not a JSON object"),
        (b"{", "not a JSON object"),
        (b"\xff", "not a JSON object"),
        (b'{"a": 1, "a": 2}', "twice"),
    ],
)
def test_a_file_that_is_not_labels_json_is_refused(tmp_path, content, reason):
    (tmp_path / LABELS).write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_labels(tmp_path / LABELS)


def test_files_that_do_not_match_are_refused(exported, tmp_path):
    folder = exported.folder
    values = json.loads((folder / LABELS).read_text())
    for number, (changed, reason) in enumerate(
        [
            ({LABELS: {**values, "classes": ["x"]}}, "sentence_logits has 2 columns; labels.json is for 1"),
            (
                {LABELS: {**values, "tags": ["O", "B-A", "I-A"], "transitions": [[0] * 3] * 3}},
                "token_logits has 5 columns",
            ),
            ({LABELS: {**values, "hidden_size": 8}}, "embeddings has 32 columns"),
            ({LABELS: {**values, "vocab_size": 50}}, "tokenizer.json: gives ids up to"),
            ({LABELS: {**values, "tags": ["O", "B-A", "B-B", "I-A", "I-B"]}}, "labels can't be used"),
            ({MODEL: b"none"}, "model.onnx: can't be loaded"),
            ({"tokenizer.json": b"{}"}, "tokenizer.json: "),
        ]
    ):
        written = {n: v if isinstance(v, bytes) else json.dumps(v).encode() for n, v in changed.items()}
        with pytest.raises(InputError, match=reason) as error:
            Predictor.from_onnx(copy_export(folder, tmp_path / str(number), **written))
        assert len(str(error.value).splitlines()) == 1


def test_a_missing_onnxruntime_is_reported_with_the_install_command(exported, monkeypatch):
    folder = exported.folder
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="pip install -r requirements-export.txt"):
        OnnxModel(folder)
