"""Frozen weights stay bit-identical while the others train."""

import pytest
import torch
from torch.nn.utils import clip_grad_norm_

from model import MultiTaskTransformer, multitask_loss
from multitask.config.schema import LoraSettings, TrainingSettings
from multitask.encoders.lora import add_lora
from multitask.training.optimizer import make_optimizer

SETTINGS = TrainingSettings(learning_rate=1e-3, weight_decay=0.5, warmup=0, layer_decay=0.8)
LOWEST = ["bert.embeddings.", "bert.encoder.layer.0.", "bert.encoder.layer.1."]


@pytest.mark.parametrize(
    ("choice", "rank", "frozen"),
    [
        ({}, 0, []),
        ({"backbone": True}, 0, ["bert."]),
        ({"layers": 2}, 0, LOWEST),
        ({"task_a": True}, 0, ["sentence_classifier."]),
        ({"task_b": True}, 0, ["classifier."]),
        ({}, 2, ["bert."]),
        ({"layers": 2, "task_a": True}, 2, ["bert.", "sentence_classifier."]),
    ],
)
@pytest.mark.parametrize("recomputed", [False, True])
def test_only_trainable_weights_change(tiny, choice, rank, frozen, recomputed):
    torch.manual_seed(0)
    model = MultiTaskTransformer.from_pretrained(tiny, num_classes_task_a=2, num_labels_task_b=3)
    model.freeze(**choice)
    if rank:
        add_lora(model, LoraSettings(rank=rank, dropout=0.1))
    if recomputed:
        model.recompute_activations()
    input_ids, mask = torch.randint(5, 90, (4, 9)), torch.ones(4, 9, dtype=torch.long)
    labels = torch.randint(0, 2, (4,)), torch.randint(0, 3, (4, 9))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer, schedule = make_optimizer(model, SETTINGS, 8)
    model.train()
    for _ in range(4):
        sum(multitask_loss(model(input_ids, mask), *labels, 4, 36)).backward()
        clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    after = model.state_dict()
    assert after.keys() == before.keys()
    for name, value in after.items():
        still = any(name.startswith(prefix) for prefix in frozen) and "lora" not in name
        # a key's bias shifts all scores of a query equally: its gradient is only rounding error
        assert torch.equal(value, before[name]) == still or (not still and "key.bias" in name), name
    assert bool([name for name in after if "lora" in name]) == bool(rank)
