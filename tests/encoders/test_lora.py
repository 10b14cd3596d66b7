"""LoRA adapters: where they are, how they start, how they train, and how they merge."""

import sys
from typing import get_args

import pytest
import torch
from torch import nn

import task_4
from model import MultiTaskTransformer
from multitask.config.schema import LoraSettings, LoraTarget, TrainingSettings
from multitask.encoders.lora import add_lora, merge_lora
from multitask.training.optimizer import make_optimizer

ALL = get_args(LoraTarget)
RATES = TrainingSettings(learning_rate=1e-2, head_learning_rate=1e-2, warmup=0)


@pytest.fixture
def model(tiny):
    torch.manual_seed(1)
    return MultiTaskTransformer.from_pretrained(tiny, num_classes_task_a=2, num_labels_task_b=3)


@pytest.fixture
def batch():
    torch.manual_seed(2)
    input_ids, mask = torch.randint(5, 90, (4, 9)), torch.ones(4, 9, dtype=torch.long)
    mask[1, 5:] = 0
    return input_ids, mask


def steps(model, batch, count: int, between=lambda: None) -> dict[str, torch.Tensor]:
    """Train for some steps with dropout → the weights after them."""
    model.train()
    optimizer, schedule = make_optimizer(model, RATES, 10)
    torch.manual_seed(3)
    for _ in range(count):
        sum(logits.square().sum() for logits in model(*batch)).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        between()
    return {name: value.clone() for name, value in model.state_dict().items()}


def logits(model, batch) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([output.flatten() for output in model.eval()(*batch)])


@pytest.mark.parametrize("target", ALL)
def test_unfrozen_layers_get_adapters_and_others_do_not(model, target):
    before = dict(model.named_modules())
    model.freeze(layers=1)
    add_lora(model, LoraSettings(rank=2, targets=(target,)))
    trains = {name for name, p in model.named_parameters() if p.requires_grad and name.startswith("bert")}
    places = {name.partition(".lora_")[0] for name in trains}
    assert len(trains) == 2 * len(places) == 4, "each adapter has two matrices"
    own = {name for name, module in before.items() if isinstance(module, nn.Linear) and "bert" in name}
    kind = target.removeprefix("attention_")
    names = {name for name in own if f".{kind}" in name and ".layer.0." not in name}
    if kind == "output":
        names = {name for name in names if ("attention" in name) == ("attention" in target)}
    assert places == names
    assert model.classifier.weight.requires_grad and model.sentence_classifier.weight.requires_grad


def test_adapters_start_without_effect_and_depend_on_the_seed(tiny, batch):
    def made(seed):
        torch.manual_seed(1)
        model = MultiTaskTransformer.from_pretrained(tiny, num_classes_task_a=2, num_labels_task_b=3)
        plain = logits(model, batch)
        torch.manual_seed(seed)
        add_lora(model, LoraSettings(rank=2, targets=ALL))
        assert torch.equal(logits(model, batch), plain)
        return torch.cat([p.flatten() for name, p in model.named_parameters() if "lora_A" in name])

    assert torch.equal(made(4), made(4))
    assert not torch.equal(made(4), made(5))


@pytest.mark.parametrize("frozen", [0, 1])
def test_dropout_runs_only_in_layers_with_adapters(model, batch, frozen):
    model.train()
    model.freeze(layers=frozen)
    add_lora(model, LoraSettings(rank=2))
    hidden = model.bert.embeddings(batch[0])
    assert torch.equal(model.bert.embeddings(batch[0]), hidden)
    for number, layer in enumerate(model.bert.encoder.layer):
        assert torch.equal(layer(hidden), layer(hidden)) == (number < frozen)


def test_the_merged_model_has_no_adapters_and_the_same_outputs(model, batch, tmp_path):
    fields, names = model.config.to_dict(), list(model.state_dict())
    add_lora(model, LoraSettings(rank=3, alpha=5.0, targets=ALL))
    own = {name: value for name, value in model.state_dict().items() if "lora" not in name}
    steps(model, batch, 3)
    merged = merge_lora(model)
    assert type(merged) is MultiTaskTransformer
    assert list(merged.state_dict()) == names
    assert merged.config.to_dict() == fields
    torch.testing.assert_close(logits(merged, batch), logits(model, batch), atol=1e-5, rtol=0)
    layer = model.bert.encoder.layer[1].output.dense
    by_hand = own["bert.encoder.layer.1.output.dense.base_layer.weight"] + 5 / 3 * (
        layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    )
    torch.testing.assert_close(merged.bert.encoder.layer[1].output.dense.weight, by_hand)
    merged.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    loaded = MultiTaskTransformer.from_pretrained(tmp_path)
    assert torch.equal(logits(loaded, batch), logits(merged, batch))


def test_merging_does_not_affect_further_training(model, batch):
    add_lora(model, LoraSettings(rank=2, dropout=0.1))
    start = {name: value.clone() for name, value in model.state_dict().items()}
    alone = steps(model, batch, 4)
    model.load_state_dict(start)
    watched = steps(model, batch, 4, between=lambda: merge_lora(model))
    for name, value in alone.items():
        assert torch.equal(watched[name], value), name
    assert not all(torch.equal(value, start[name]) for name, value in alone.items())


def test_a_model_without_adapters_is_its_own_merged_model(model):
    assert merge_lora(model) is model


def test_without_peft_a_run_fails_before_any_work(shell, settings_for, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "peft", None)
    overrides = ["model.lora.rank=2", "model.freeze_backbone=false", "data.train=nowhere.jsonl"]
    ended = shell(task_4, *settings_for, *overrides)
    assert ended.status == 2
    assert ended.err == "error: model.lora needs peft: pip install -r requirements-lora.txt\n"
    assert not (tmp_path / "run").exists()


def test_adapters_in_layers_that_are_all_frozen_are_refused(shell, settings_for):
    overrides = ["model.lora.rank=2", "model.freeze_backbone=false", "model.freeze_layers=3"]
    ended = shell(task_4, *settings_for, *overrides)
    assert (ended.status, "no layer is left for model.lora" in ended.err) == (2, True)
