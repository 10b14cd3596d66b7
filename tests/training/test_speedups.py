"""The faster modules compute the same as torch's own."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from model import MultiTaskTransformer
from multitask.speedups.modules import FastDropout, OccurringRows, train_occurring_rows, use_fast_dropout

IDS = torch.tensor([[2, 7, 9, 9, 3, 0], [2, 11, 30, 7, 8, 3]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]])


@pytest.fixture
def models(tiny):
    """The same model twice; the second trains the rows of IDS only."""
    whole = MultiTaskTransformer.from_pretrained(
        tiny,
        num_classes_task_a=2,
        num_labels_task_b=3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    rows = copy.deepcopy(whole)
    train_occurring_rows(rows, IDS.numpy())
    return whole, rows


def step(model, optimizer):
    model.train()
    sentence, tokens = model(IDS, MASK)
    (sentence.square().sum() + tokens[MASK.bool()].square().sum()).backward()
    optimizer.step()
    optimizer.zero_grad()


def trained(models, steps=4):
    for model in models:
        # Adam would blow the last bit of a gradient that is nearly 0 up to a whole step
        optimizer = SGD(model.parameters(), lr=0.01)
        for _ in range(steps):
            step(model, optimizer)
    return [model.state_dict() for model in models]


def test_training_the_rows_that_occur_is_training_all(models, tiny):
    start = models[0].state_dict()["bert.embeddings.word_embeddings.weight"].clone()
    whole, rows = trained(models)
    assert whole.keys() == rows.keys()
    for name in whole:
        assert torch.allclose(whole[name], rows[name], atol=1e-6), name
    table = rows["bert.embeddings.word_embeddings.weight"]
    occurring = np.unique(IDS)
    never = np.setdiff1d(np.arange(len(table)), occurring)
    assert torch.equal(table[never], start[never])
    moved = (table != start).any(1).numpy()
    assert sorted(np.flatnonzero(moved)) == [i for i in occurring if i != 0], "the padding has no gradient"


def test_the_parameters_are_as_many_as_the_rows(models):
    embedding = models[1].bert.embeddings.word_embeddings
    assert embedding.weight.shape == (len(np.unique(IDS)), 32)


def test_evaluation_sees_every_step_and_every_id(models):
    other = torch.tensor([[2, 40, 41, 7, 3]])
    for _ in range(3):
        trained(models, steps=1)
        whole, rows = (model.eval()(other) for model in models)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(whole, rows))


def test_what_is_saved_loads_as_a_plain_model(models, tmp_path):
    trained(models)
    model = models[1].eval()
    model.save_pretrained(tmp_path)
    loaded = MultiTaskTransformer.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(loaded(IDS, MASK), model(IDS, MASK)))


def test_a_step_of_the_runs_own_optimizer_is_seen(models):
    model = models[1]
    embedding = model.bert.embeddings.word_embeddings
    optimizer = AdamW(model.parameters(), lr=0.01, fused=True)
    for _ in range(2):
        step(model, optimizer)
        in_training = embedding(IDS)
        model.eval()
        assert torch.equal(embedding(IDS), in_training)


def test_frozen_embeddings_stay_as_they_are(tiny):
    model = MultiTaskTransformer.from_pretrained(tiny)
    model.freeze(layers=1)
    train_occurring_rows(model, IDS.numpy())
    assert not isinstance(model.bert.embeddings.word_embeddings, OccurringRows)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_as_many_are_dropped_and_the_rest_scaled_as_in_torch(p):
    torch.manual_seed(0)
    x = torch.randn(101, 997)
    y = FastDropout(p)(x)
    kept = y != 0
    share, deviation = kept.float().mean(), (p * (1 - p) / x.numel()) ** 0.5
    assert abs(share - (1 - p)) < 5 * deviation + 1 / 65536
    assert torch.allclose(y[kept], x[kept] / (1 - p), rtol=1e-3)
    # neither neighbours, which share a random number of the generator, nor rows go together
    pairs = kept[:, :-1] & kept[:, 1:]
    assert abs(pairs.float().mean() - (1 - p) ** 2) < 0.01
    assert abs((kept[:-1] & kept[1:]).float().mean() - (1 - p) ** 2) < 0.01


def test_the_gradient_goes_through_what_was_kept():
    x = torch.randn(7, 13, requires_grad=True)
    y = FastDropout(0.5)(x)
    y.sum().backward()
    assert torch.equal(x.grad, torch.where(y == 0, 0.0, 2.0))


def test_the_seed_decides_and_each_call_differs():
    drop, x = FastDropout(0.3), torch.ones(50, 33)
    torch.manual_seed(1)
    first, second = drop(x), drop(x)
    torch.manual_seed(1)
    assert torch.equal(drop(x), first)
    assert not torch.equal(first, second)


def test_nothing_is_dropped_in_evaluation_or_at_0():
    x = torch.randn(5, 5)
    assert FastDropout(0.5).eval()(x) is x
    assert FastDropout(0.0)(x) is x


def test_every_dropout_of_the_model_is_replaced_with_its_probability_and_mode(tiny):
    model = MultiTaskTransformer.from_pretrained(tiny, hidden_dropout_prob=0.25)
    model.freeze(layers=1)
    model.train()
    before = {name: (m.p, m.training) for name, m in model.named_modules() if isinstance(m, nn.Dropout)}
    ids = torch.randint(5, 50, (2, 9))
    model.eval()
    expected = model(ids)
    use_fast_dropout(model.train())
    after = {name: (m.p, m.training) for name, m in model.named_modules() if isinstance(m, FastDropout)}
    assert after == before
    assert len({training for _, training in after.values()}) == 2, "a frozen layer's stays off"
    assert not any(type(m) is nn.Dropout for m in model.modules())
    model.eval()
    assert all(torch.equal(a, b) for a, b in zip(model(ids), expected))
