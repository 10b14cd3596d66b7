"""Passes in a few padded shapes give the outputs of passes without them."""

import copy

import numpy as np
import pytest
import torch
from examples import EXAMPLES, LABELS

from multitask.data.corpus import encode
from multitask.data.examples import example_from_text
from multitask.inference.runner import run_model
from multitask.inference.torch_runner import TorchRunner, fast_runner
from multitask.speedups.graph_cache import CaptureError, GraphCache

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, NO_GPU])]


@pytest.fixture
def corpus(tokenizer):
    """Rows of very different lengths, in one window or several, and a blank one."""
    texts = [" ".join(["anna won"] * (1 + n * n % 23)) for n in range(60)] + ["", "paris"]
    examples = [*EXAMPLES, *map(example_from_text, texts)]
    return encode(examples, tokenizer, LABELS, max_length=24, stride=5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("heads", [True, False])
def test_graphs_give_the_same_outputs(corpus, random_model, monkeypatch, device, pooling, heads):
    monkeypatch.setattr("multitask.inference.runner.MAX_ROWS", 40)  # several chunks
    model = copy.deepcopy(random_model).to(device)
    model.config.pooling = pooling
    plain, graphed = TorchRunner(model), TorchRunner(model)
    graphed.use_graphs(tokens=100)  # several batches of a length
    if not heads:
        plain, graphed = plain.without_heads(), graphed.without_heads()
    for _ in range(2):
        expected, found = list(run_model(plain, corpus)), list(run_model(graphed, corpus))
        assert [(out.first, out.last) for out in found] == [(out.first, out.last) for out in expected]
        for out, other in zip(found, expected):
            for array, wanted in zip(out[2:], other[2:]):
                assert (array is None) == (wanted is None)
                if array is not None:
                    np.testing.assert_allclose(array, wanted, atol=2e-5)


def test_what_cuda_cannot_record_runs_plainly(corpus, random_model, monkeypatch, caplog):
    def refuse(self, key, work, warm_up):
        raise CaptureError("operation not permitted when stream is capturing")

    monkeypatch.setattr(GraphCache, "get", refuse)
    runner = TorchRunner(random_model)
    (expected,) = run_model(runner, corpus)
    runner.use_graphs()
    (found,) = run_model(runner, corpus)
    np.testing.assert_array_equal(found.word_logits, expected.word_logits)
    assert "prediction continues without CUDA graphs: operation not permitted" in caplog.text


def test_where_memory_is_short_batches_become_smaller(corpus, random_model, monkeypatch, caplog):
    runner = TorchRunner(random_model)
    (expected,) = run_model(runner, corpus)
    real, sizes = TorchRunner._forward, []

    def scarce(self, ids, mask, *rest):
        if ids.numel() > 300:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(ids.numel())
        return real(self, ids, mask, *rest)

    monkeypatch.setattr(TorchRunner, "_forward", scarce)
    runner.packs, runner.workers, runner.batch_tokens = False, 1, 1 << 14
    runner.use_graphs(tokens=400)
    for _ in range(2):
        (found,) = run_model(runner, corpus)
        for array, wanted in zip(found[2:], expected[2:]):
            np.testing.assert_allclose(array, wanted, atol=2e-5)
    assert caplog.text.count("prediction continues without CUDA graphs: CUDA out of memory") == 1
    assert caplog.text.count("out of memory: continuing with batches of 256 tokens") == 1
    assert max(sizes) > 128


def test_a_pass_that_never_fits_is_an_error(corpus, random_model, monkeypatch):
    def fails(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(TorchRunner, "_forward", fails)
    with pytest.raises(torch.OutOfMemoryError):
        list(run_model(TorchRunner(random_model), corpus))


@pytest.mark.cuda
@NO_GPU
def test_a_gpu_that_is_nearly_full_still_predicts(corpus, random_model, caplog):
    plain = TorchRunner(copy.deepcopy(random_model).to("cuda"))
    (expected,) = run_model(plain, corpus)
    graphed = TorchRunner(plain.model)
    graphed.use_graphs(tokens=1 << 20)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + (64 << 20)) / total)
    try:
        (found,) = run_model(graphed, corpus)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "prediction continues without CUDA graphs" in caplog.text
    for array, wanted in zip(found[2:], expected[2:]):
        np.testing.assert_allclose(array, wanted, atol=2e-5)


def test_graphs_are_for_gpus(random_model):
    assert fast_runner(random_model, "fp32").graphs is None
