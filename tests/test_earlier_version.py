"""What version 1421c17 wrote is read by this one: models, checkpoints, caches, exports and predictions.

tests/earlier_version holds what that version left in one folder: `finished` and `interrupted` are the same
run of six steps, of which the second was killed in its fifth; `cache` has the features of a frozen encoder
and the encoded rows; `predictions` are those of finished/model, and `exported` is its export."""

import json
import shutil

import numpy as np
import pytest
from conftest import ROOT
from safetensors.numpy import load_file

import task_4
import task_5
from multitask.data import splits
from multitask.data.tokenization import WordTokenizer
from multitask.encoders.pretrained import load_tokenizer

FROZEN = [
    f"--config={ROOT / 'config.yml'}",
    "model.backbone=encoder",
    "model.num_classes_task_a=2",
    "model.num_labels_task_b=3",
    "model.max_length=32",
    "model.stride=8",
    "data.train=rows.jsonl",
    "data.dev=rows.jsonl",
    "data.test=null",
    "training.batch_size=4",
    "training.learning_rate=1e-3",
    "training.num_epochs=1",
    "training.precision=fp32",
    "training.feature_memory=0",
    "device=cpu",
]


@pytest.fixture
def earlier(tmp_path, shell):
    """A copy of what the earlier version left, which is the working folder."""
    return shutil.copytree(ROOT / "tests" / "earlier_version", tmp_path, dirs_exist_ok=True)


def weights_match(first, second):
    """Whether two runs ended with the same weights. CPUs differ in the last digits, which six steps of Adam
    make larger."""
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (first, second))
    return first.keys() == second.keys() and all(
        np.allclose(first[name], second[name], atol=1e-4) for name in first
    )


def test_an_interrupted_run_of_an_earlier_version_resumes(earlier, shell):
    ended = shell(task_4, "--resume", "interrupted")
    assert ended.status == 0, ended.err
    assert "Resuming interrupted after step 4, 2 of epoch 2" in ended.out
    assert weights_match(earlier / "interrupted", earlier / "finished")
    rows = [
        [json.loads(line) for line in (earlier / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("interrupted", "finished")
    ]
    assert len(rows[0]) == len(rows[1]) == 4  # three epochs, and the line of the test set
    for one, two in zip(*(run[:3] for run in rows)):
        assert one["loss"] == pytest.approx(two["loss"], abs=1e-4)


def test_a_checkpoint_matters(earlier, shell):
    """The comparison above can fail: the same run without its checkpoint ends with other weights where the
    seed is another one."""
    shutil.rmtree(earlier / "interrupted")
    config = (earlier / "finished" / "config.yml").read_text().replace("seed: 0", "seed: 1")
    (earlier / "seed_1.yml").write_text(config)
    ended = shell(task_4, "--config=seed_1.yml", "output_dir=interrupted")
    assert ended.status == 0, ended.err
    assert not weights_match(earlier / "interrupted", earlier / "finished")


@pytest.mark.parametrize("model", ["finished/model", "exported"])
def test_a_model_of_an_earlier_version_predicts_the_same(earlier, shell, model):
    arguments = ["--input", "rows.jsonl", "--output", "now.jsonl", "--embeddings", "now.npy"]
    ended = shell(task_5, "predict", "--model", model, *arguments)
    assert ended.status == 0, ended.err
    before, now = (
        [json.loads(line) for line in (earlier / name).read_text().splitlines()]
        for name in ("predictions.jsonl", "now.jsonl")
    )
    assert len(now) == len(before) == 8
    for old, new in zip(before, now):
        assert (new["text"], new["label"]) == (old["text"], old["label"])
        assert new["probabilities"] == pytest.approx(old["probabilities"], abs=2e-6)
        places = [
            [(e["start"], e["end"], e["text"], e["label"]) for e in row["entities"]] for row in (old, new)
        ]
        assert places[0] == places[1]
    assert np.allclose(np.load("now.npy"), np.load("predictions.npy"), atol=1e-5)


def test_cached_features_of_an_earlier_version_are_used(earlier, shell):
    entries = {path.name for path in (earlier / "cache").iterdir()}
    ended = shell(task_4, *FROZEN, "output_dir=again")
    assert ended.status == 0, ended.err
    assert "made anew" not in ended.err and {path.name for path in (earlier / "cache").iterdir()} == entries
    ended = shell(
        task_4, *FROZEN, "model.max_length=8", "model.stride=2", "output_dir=other"
    )  # other windows: another entry
    assert ended.status == 0, ended.err
    assert len(list((earlier / "cache").iterdir())) > len(entries)


def test_a_model_of_an_earlier_version_is_a_starting_model(earlier, shell):
    frozen = [word for word in FROZEN if not word.startswith("model.backbone")]
    ended = shell(task_4, *frozen, "model.backbone=finished/model", "output_dir=further")
    assert ended.status == 0, ended.err
    assert "a new head is trained" not in ended.err


def test_encoded_rows_in_the_cache_of_an_earlier_version_are_used(earlier, monkeypatch):
    monkeypatch.setattr(splits, "CACHED_FROM_BYTES", 0)
    entries = {path.name for path in (earlier / "cache").iterdir()}

    def read(path):
        tokenizer = WordTokenizer(load_tokenizer("encoder"))
        return splits.read_split([path], tokenizer, 32, 8, "stop", "", "cache")

    cached = read("rows.jsonl")
    assert {path.name for path in (earlier / "cache").iterdir()} == entries
    assert cached.class_names == ["sports", "politics"] and len(cached) == 8
    shutil.copy("rows.jsonl", "other.jsonl")  # another name is another key
    encoded = read("other.jsonl")
    assert len(list((earlier / "cache").iterdir())) == len(entries) + 1
    for name, array in encoded.arrays.items():
        assert (cached.arrays[name] == array).all(), name
