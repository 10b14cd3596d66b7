import numpy as np
import pytest
import torch
from examples import EXAMPLES, LABELS
from transformers import BertModel

from model import MultiTaskTransformer
from multitask.common import array_cache
from multitask.common.errors import InputError
from multitask.data.batching import collate
from multitask.data.corpus import encode
from multitask.data.labels import LabelSpace
from multitask.inference.runner import run_model
from multitask.inference.torch_runner import TorchRunner
from multitask.speedups.frozen_features import FrozenFeatures, features_key
from token_heads import TOKEN_HEADS


@pytest.fixture
def corpus(tokenizer):
    return encode(EXAMPLES, tokenizer, LABELS, 10, 3)


@pytest.fixture(params=TOKEN_HEADS)
def model(request, tiny):
    sizes = {"num_classes_task_a": 2, "num_labels_task_b": 3}
    return MultiTaskTransformer.from_pretrained(tiny, token_head=request.param, **sizes).train()


def close(a, b):
    return torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_features_are_the_outputs_of_the_layers(model, corpus, tiny, depth):
    features = FrozenFeatures(model, corpus, depth)
    oracle = BertModel.from_pretrained(tiny).eval()
    windows = np.arange(len(corpus.window_start))[::-1]
    batch = features.batch(windows)
    for row, window in enumerate(windows):
        one = collate(corpus, np.array([window]))
        with torch.no_grad():
            states = oracle(one["input_ids"], one["attention_mask"], output_hidden_states=True).hidden_states
        stored = torch.stack([states[layer][0] for layer in model.stored_layers(depth)], 1)  # (T, n, D)
        assert close(batch[row, : corpus.window_lengths[window]], stored)
    assert model.training, "the model's mode is as it was"


@pytest.mark.parametrize("depth", [1, 3])
def test_a_pass_from_features_equals_a_pass_from_the_text(model, corpus, depth):
    model.freeze(backbone=depth == 3, layers=depth % 3)
    assert model.frozen_depth == depth
    features = FrozenFeatures(model, corpus, depth)
    for cached, plain in zip(
        run_model(TorchRunner(model, features), corpus), run_model(TorchRunner(model), corpus)
    ):
        assert np.allclose(cached.sentence_logits, plain.sentence_logits, atol=1e-5)
        assert np.allclose(cached.word_logits, plain.word_logits, atol=1e-5)


def test_the_depth_counts_the_lowest_frozen_layers(model):
    assert model.frozen_depth == 0
    model.freeze(task_a=True, task_b=True)
    assert model.frozen_depth == 0
    model.freeze(layers=2)
    assert model.frozen_depth == 2
    model.bert.encoder.layer[0].output.dense.bias.requires_grad_(True)
    assert model.frozen_depth == 0


def test_bf16_features_take_half_the_space(model, corpus, tmp_path):
    full = FrozenFeatures(model, corpus, 2)
    for cache in (None, str(tmp_path / "cache")):
        half = FrozenFeatures(model, corpus, 2, torch.bfloat16, memory=0, cache_dir=cache)
        assert half.values.nbytes * 2 == full.values.nbytes
        windows = np.arange(len(corpus.window_start))
        assert torch.allclose(half.batch(windows), full.batch(windows), atol=0.1)
        assert half.batch(windows).dtype == torch.float32


def test_large_features_of_several_layers_take_half_the_space(model, corpus, tmp_path):
    full = FrozenFeatures(model, corpus, 2)
    several = len(model.stored_layers(2)) > 1
    for memory in (0, full.values.nbytes):
        same = FrozenFeatures(model, corpus, 2, memory=memory, cache_dir=str(tmp_path / "cache"))
        assert same.values.dtype == np.float32
        half = FrozenFeatures(
            model, corpus, 2, memory=memory, cache_dir=str(tmp_path / "cache"), large=full.values.nbytes - 1
        )
        assert half.values.dtype == (np.float16 if several else np.float32)
        windows = np.arange(len(corpus.window_start))
        assert torch.allclose(half.batch(windows), full.batch(windows), atol=2e-3)
        assert half.batch(windows).dtype == torch.float32


def no_pass(*_, **__):
    raise AssertionError("a layer ran")


def test_large_features_go_to_disk_and_the_next_run_reads_them(model, corpus, tmp_path, monkeypatch, capfd):
    folder = str(tmp_path / "cache")
    size = int(corpus.window_lengths.sum()) * 32 * 4 * len(model.stored_layers(2))
    in_memory = FrozenFeatures(model, corpus, 2, memory=size, cache_dir=folder)
    assert not (tmp_path / "cache").exists()
    first = FrozenFeatures(model, corpus, 2, memory=size - 1, cache_dir=folder)
    assert isinstance(first.values, np.memmap)
    assert np.array_equal(first.values, in_memory.values)
    assert "0.0 GB on disk" in capfd.readouterr().err
    monkeypatch.setattr(model, "states", no_pass)
    again = FrozenFeatures(model, corpus, 2, memory=0, cache_dir=folder)
    assert np.array_equal(again.values, in_memory.values)


def test_damaged_features_are_computed_again(model, corpus, tmp_path, capfd):
    folder = tmp_path / "cache"
    expected = np.array(FrozenFeatures(model, corpus, 2, memory=0, cache_dir=str(folder)).values)
    (file,) = folder.glob("*/features.npy")
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    again = FrozenFeatures(model, corpus, 2, memory=0, cache_dir=str(folder))
    assert np.array_equal(again.values, expected)
    assert "made anew" in capfd.readouterr().err


def test_features_too_large_for_the_disk_are_refused_early(model, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(array_cache, "free_bytes", lambda folder: 1 << 30)
    monkeypatch.setattr(model, "states", no_pass)
    with pytest.raises(InputError, match="the frozen layers' features take about .* GB"):
        FrozenFeatures(model, corpus, 2, memory=0, cache_dir=str(tmp_path / "cache"))
    assert list(tmp_path.iterdir()) == []


def test_the_key_changes_with_everything_that_features_depend_on(model, tokenizer, corpus):
    def key(model=model, corpus=corpus, depth=2, precision=torch.float32):
        return features_key(model, corpus, depth, precision)

    same = encode(EXAMPLES, tokenizer, LabelSpace(("other",), ()), 10, 3)
    assert key() == key(corpus=same), "features do not depend on labels"
    keys = [
        key(),
        key(depth=1),
        key(precision=torch.bfloat16),
        key(corpus=encode(EXAMPLES[1:], tokenizer, LABELS, 10, 3)),
        key(corpus=encode(EXAMPLES, tokenizer, LABELS, 9, 3)),
        key(corpus=encode(EXAMPLES, tokenizer, LABELS, 10, 2)),
    ]
    with torch.no_grad():
        model.bert.encoder.layer[2].output.dense.bias[0] += 1
    assert key() == keys[0], "features do not depend on layers above the depth"
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.bias[0] += 1
    keys.append(key())
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[3, 3] += 1
    keys.append(key())
    assert len(set(keys)) == len(keys)
