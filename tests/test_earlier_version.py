"""Today's code reads what version 1421c17 wrote: models, checkpoints, caches, exports and predictions.

tests/earlier_version holds files of that version:
- `finished` and `interrupted`: the same run of six steps; a kill ended the second run in its fifth step.
- `cache`: the features of a frozen encoder, and the encoded rows.
- `exported`: the export of finished/model. `predictions`: those of finished/model for rows.jsonl.
- `unfinished`: predictions for unfinished/rows.jsonl (out.jsonl, out.npy) and for rows.jsonl (out.csv), as
  SIGTERM left them after six rows, and complete."""

import csv
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
    "model.token_head=linear",
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
    """A copy of the earlier version's files, as the working folder."""
    return shutil.copytree(ROOT / "tests" / "earlier_version", tmp_path, dirs_exist_ok=True)


def weights_match(first, second):
    """Whether two runs ended with the same weights. CPUs differ in the last digits, and six steps of Adam
    increase the difference."""
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (first, second))
    return first.keys() == second.keys() and all(
        np.allclose(first[name], second[name], atol=1e-4) for name in first
    )


def read_jsonl(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_same_predictions(before, now):
    """Compare two JSON Lines files of predictions; only the reasons for unreadable rows may differ, and blank
    texts, of which an earlier version predicted a class."""
    before, now = read_jsonl(before), read_jsonl(now)
    assert len(now) == len(before)
    for old, new in zip(before, now):
        assert new["text"] == old["text"] and ("error" in new) == ("error" in old)
        if new["text"] == "" and new["label"] is None:
            assert (new["probabilities"], new["entities"]) == (None, [])
        elif "error" not in new:
            assert new["label"] == old["label"]
            assert new["probabilities"] == pytest.approx(old["probabilities"], abs=2e-6)
            first, second = ([{**e, "score": None} for e in row["entities"]] for row in (old, new))
            assert first == second


def test_an_interrupted_run_of_an_earlier_version_resumes(earlier, shell):
    ended = shell(task_4, "--resume", "interrupted")
    assert ended.status == 0, ended.err
    assert "Resuming interrupted after step 4, 2 of epoch 2" in ended.out
    assert weights_match(earlier / "interrupted", earlier / "finished")
    resumed, finished = (read_jsonl(earlier / run / "metrics.jsonl") for run in ("interrupted", "finished"))
    assert len(resumed) == len(finished) == 4  # three epochs, and the line of the test set
    losses = [[epoch["loss"] for epoch in run[:3]] for run in (resumed, finished)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_another_seed_gives_other_weights(earlier, shell):
    """The comparison above can fail: a run with another seed, without the checkpoint, gives other weights."""
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
    assert_same_predictions(earlier / "predictions.jsonl", earlier / "now.jsonl")
    assert np.allclose(np.load("now.npy"), np.load("predictions.npy"), atol=1e-5)


def test_an_unfinished_output_of_an_earlier_version_resumes(earlier, shell):
    """Of the six rows that are written, two can't be read; of the other four, one."""
    written = (earlier / "unfinished" / "out.jsonl.partial").read_bytes()
    files = ["--output", "unfinished/out.jsonl", "--embeddings", "unfinished/out.npy"]
    arguments = ["predict", "--model", "finished/model", "--input", "unfinished/rows.jsonl", *files]
    ended = shell(task_5, *arguments, "--resume")
    assert ended.status == 0, ended.err
    assert "resumes after 6 rows" in ended.err
    assert "written by an earlier version; the input must be the same" in ended.err
    assert (earlier / "unfinished" / "out.jsonl").read_bytes().startswith(written)
    assert_same_predictions(earlier / "unfinished" / "whole.jsonl", earlier / "unfinished" / "out.jsonl")
    vectors, whole = np.load("unfinished/out.npy"), np.load("unfinished/whole.npy")
    assert np.allclose(vectors, whole, atol=1e-5, equal_nan=True)


def test_rows_of_an_earlier_version_are_compared_with_the_input(earlier, shell):
    """If all rows can be read: an earlier version also hashed the reasons for those that can't."""
    arguments = ["predict", "--model", "finished/model", "--output", "unfinished/out.csv", "--resume"]
    (earlier / "other.jsonl").write_text('{"text": "another"}\n' * 8)
    other = shell(task_5, *arguments, "--input", "other.jsonl")
    assert other.status == 2
    assert "its 6 rows are not the first rows of the input" in other.err
    same = shell(task_5, *arguments, "--input", "rows.jsonl")
    assert same.status == 0, same.err
    assert "earlier version" not in same.err
    with open("unfinished/out.csv") as now, open("unfinished/whole.csv") as before:
        for new, old in zip(csv.DictReader(now), csv.DictReader(before), strict=True):
            assert (new["text"], new["label"]) == (old["text"], old["label"])
            assert float(new["probability"]) == pytest.approx(float(old["probability"]), abs=2e-6)


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


def test_encoded_rows_of_an_earlier_version_are_encoded_again(earlier, monkeypatch):
    """The words of a raw text were others: they also ended where an entity ended."""
    monkeypatch.setattr(splits, "CACHED_FROM_BYTES", 0)
    entries = {path.name for path in (earlier / "cache").iterdir()}

    def read(path):
        tokenizer = WordTokenizer(load_tokenizer("encoder"))
        return splits.read_split([path], tokenizer, 32, 8, "stop", "", "cache")

    cached = read("rows.jsonl")
    assert len(list((earlier / "cache").iterdir())) == len(entries) + 1
    assert cached.class_names == ["sports", "politics"] and len(cached) == 8
    shutil.copy("rows.jsonl", "other.jsonl")  # another name is another key
    encoded = read("other.jsonl")
    assert len(list((earlier / "cache").iterdir())) == len(entries) + 2
    for name, array in encoded.arrays.items():
        assert (cached.arrays[name] == array).all(), name
