"""Windows end to end: no token is lost or doubled, none sees another window's, and little is left empty."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model import MultiTaskTransformer
from multitask.data.batching import even_batches
from multitask.data.corpus import encode
from multitask.data.examples import example_from_text
from multitask.data.labels import LabelSpace
from multitask.inference import packing
from multitask.inference.packing import pack
from multitask.inference.runner import run_model
from multitask.inference.torch_runner import TorchRunner

LENGTHS = st.lists(st.integers(2, 64), min_size=1, max_size=40)
LABELS = LabelSpace((), ())


def batch(lengths):
    """Padded ids (B, T), all of them different, and their mask."""
    lengths = np.array(lengths)
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    return np.where(mask, 1 + np.arange(mask.size).reshape(mask.shape), 0), mask


@given(LENGTHS, st.integers(64, 200))
def test_every_token_stands_once_in_a_row_that_is_not_too_long(lengths, longest_row):
    ids, mask = batch(lengths)
    packed = pack(ids, mask, longest_row)
    if packed is None:
        return
    rows, width = packed.input_ids.shape
    assert width <= longest_row and rows * width < 0.95 * mask.size
    assert packed.positions.shape == packed.owners.shape == (rows, width)
    real, places = mask.astype(bool), packed.places
    assert (packed.input_ids.ravel()[places][real] == ids[real]).all()
    window, column = np.nonzero(real)
    assert (packed.owners.ravel()[places][real] == window).all()
    assert (packed.positions.ravel()[places][real] == column).all()
    assert (packed.owners >= 0).sum() == len(np.unique(places[real])) == mask.sum()


def test_only_what_saves_a_tenth_is_packed():
    assert pack(*batch([20] * 8), 64) is None
    assert pack(*batch([20]), 64) is None
    assert pack(*batch([64, 10, 10, 10, 10, 10, 10]), 64).input_ids.shape == (2, 64)
    rows, width = pack(*batch([30, 12] * 20), 512).input_ids.shape
    assert rows * width < 1.06 * 20 * 42 and width < 160


@given(LENGTHS, st.integers(1, 9))
def test_even_batches_hold_all_windows_in_order_and_are_even(lengths, count):
    lengths = np.sort(np.array(lengths))[::-1]
    batches = even_batches(np.arange(len(lengths)), lengths, count)
    assert np.concatenate(batches).tolist() == list(range(len(lengths)))
    assert len(batches) <= count and all(len(each) for each in batches)
    assert max(lengths[each].sum() for each in batches) <= lengths.sum() / count + lengths.max()


@pytest.mark.parametrize("packs", [True, False])
def test_threads_share_few_windows_and_many_in_batches_of_a_size(tiny, packs):
    runner = TorchRunner(MultiTaskTransformer.from_pretrained(tiny))
    runner.workers, runner.packs = 2, packs

    def tokens(*lengths):
        lengths = np.sort(np.array(lengths))[::-1]
        return [int(lengths[each].sum()) for each in runner.batches(np.arange(len(lengths)), lengths)]

    assert tokens(*[20] * 6) == [120]
    assert tokens(*[20] * 16) == [160, 160]
    assert max(tokens(*[40] * 4, *[10] * 32)) <= 280
    many = tokens(*[20] * 500)
    assert sum(many) == 10_000 and len(many) == 10 and max(many) <= runner.batch_tokens


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_packed_windows_give_what_padded_ones_give(tiny, tokenizer, pooling, monkeypatch):
    torch.manual_seed(0)
    model = MultiTaskTransformer.from_pretrained(tiny, num_labels_task_b=3, pooling=pooling)
    texts = ["anna won in paris " * n for n in (1, 5, 1, 2, 9, 1, 3, 1, 40, 1, 1)]
    corpus = encode(list(map(example_from_text, texts)), tokenizer, LABELS, max_length=32, stride=8)
    packed, shapes = TorchRunner(model), []
    assert packed.packs
    packed.workers, padded = 1, TorchRunner(model)
    padded.packs = False
    inner = packing.assign_rows
    monkeypatch.setattr(packing, "assign_rows", lambda *how: shapes.append(inner(*how)) or shapes[-1])
    (one,), calls = list(run_model(packed, corpus)), len(shapes)
    (other,) = list(run_model(padded, corpus))
    assert 0 < calls == len(shapes)
    for mine, theirs in zip(one[2:], other[2:]):
        assert np.abs(mine - theirs).max() < 2e-6
    alone = [next(run_model(padded, corpus, rows=(row, row + 1))) for row in range(len(texts))]
    assert np.abs(one.embeddings - np.concatenate([each.embeddings for each in alone])).max() < 2e-6


def test_attention_that_takes_no_mask_of_rows_gets_padded_windows(tiny):
    model = MultiTaskTransformer.from_pretrained(tiny, attn_implementation="eager")
    assert not TorchRunner(model).packs
