"""Freezing parts of the model, recomputing activations, and new heads."""

import pytest
import torch

from model import MultiTaskTransformer
from token_heads import TOKEN_HEADS

SIZES = {"num_classes_task_a": 3, "num_labels_task_b": 5}


@pytest.fixture(params=TOKEN_HEADS)
def model(request, tiny):
    torch.manual_seed(1)
    return MultiTaskTransformer.from_pretrained(tiny, token_head=request.param, **SIZES)


@pytest.fixture
def batch():
    torch.manual_seed(2)
    input_ids = torch.randint(5, 90, (3, 7))
    mask = torch.ones_like(input_ids)
    mask[1, 4:] = 0
    return input_ids, mask


@pytest.mark.parametrize(
    ("choice", "frozen"),
    [
        ({}, []),
        ({"backbone": True}, ["bert."]),
        ({"layers": 2}, ["bert.embeddings", "bert.encoder.layer.0", "bert.encoder.layer.1"]),
        ({"task_a": True}, ["sentence_classifier"]),
        (
            {"backbone": True, "task_b": True},
            ["bert.", "token_convolution.", "classifier.", "transitions."],
        ),
    ],
)
def test_freeze_affects_only_the_chosen_parts(model, choice, frozen):
    model.freeze(backbone=True, task_a=True)  # the next call must undo this
    model.freeze(**choice)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != any(name.startswith(prefix) for prefix in frozen), name


def test_a_frozen_part_runs_without_dropout_in_training(model, batch):
    model.train()
    model.freeze(backbone=True)
    assert torch.equal(model.encode(*batch), model.encode(*batch))
    assert not torch.equal(model(*batch).token_logits, model(*batch).token_logits), (
        "the heads train with dropout"
    )
    model.freeze(backbone=True, task_a=True)
    assert torch.equal(model(*batch).sentence_logits, model(*batch).sentence_logits)
    model.freeze()
    assert not torch.equal(model.encode(*batch), model.encode(*batch))


def test_freezing_too_many_layers_is_refused(model):
    with pytest.raises(ValueError, match="can't freeze 4 layers.*has 3"):
        model.freeze(layers=4)


def gradients(model, batch, seed=5) -> dict[str, torch.Tensor]:
    """The gradients and the loss of a training step with dropout."""
    model.train()
    model.zero_grad()
    torch.manual_seed(seed)
    loss = sum(logits.square().sum() for logits in model(*batch))
    loss.backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **grads}


@pytest.mark.parametrize("layers", [0, 2])
def test_recomputed_activations_give_the_same_gradients_and_rerun_only_unfrozen_layers(model, batch, layers):
    model.freeze(layers=layers)
    stored = gradients(model, batch)
    assert not torch.equal(gradients(model, batch, seed=6)["loss"], stored["loss"]), "dropout is active"
    model.recompute_activations()
    runs = [0, 0, 0]
    for number, layer in enumerate(model.bert.encoder.layer):

        def count(*_, number=number):
            runs[number] += 1

        # transformers checkpoints a layer's forward inside its hooks, so a part of the layer is watched
        layer.intermediate.register_forward_hook(count)
    recomputed = gradients(model, batch)
    assert runs == [1] * layers + [2] * (3 - layers)
    assert recomputed.keys() == stored.keys()
    for name, value in stored.items():
        assert torch.equal(recomputed[name], value), name
    model.eval()
    model(*batch)
    assert runs == [2] * layers + [3] * (3 - layers), "nothing is recomputed outside training"


def test_no_gradient_flows_through_frozen_layers_when_recomputing(model, batch):
    model.freeze(layers=2)
    model.recompute_activations()
    needs_gradient = []
    model.bert.encoder.layer[1].register_forward_hook(lambda *a: needs_gradient.append(a[2].requires_grad))
    model.train()(*batch)
    assert needs_gradient == [False]


def test_reset_changes_only_the_chosen_head(model):
    if model.transitions:
        torch.nn.init.ones_(model.transitions.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.reset(task_b=True)
    assert not (model.transitions and model.transitions.weight.any())
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    convolution = {f"token_convolution.{name}.weight" for name in ("projection", "first", "second")}
    assert (convolution <= changed) == model.config.token_head.startswith("convolution")
    transitions = {"transitions.weight"} if model.transitions else set()
    assert changed - convolution == {"classifier.weight"} | transitions
