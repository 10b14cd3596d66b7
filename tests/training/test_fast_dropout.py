import pytest
import torch
from torch import nn

from model import MultiTaskTransformer
from multitask.training.fast_dropout import FastDropout, use_fast_dropout


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
