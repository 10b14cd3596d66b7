"""Running task_4.py in a test, and reading what a run wrote."""

import json

import torch
from safetensors.torch import load_file

import task_4
from multitask.config.loading import load_settings
from multitask.config.schema import Settings
from multitask.training.preparation import prepare

NO_DROPOUT = ["model.dropout=0", "model.freeze_backbone=false"]


def metrics(folder="run") -> list[dict]:
    with open(f"{folder}/metrics.jsonl") as file:
        return [json.loads(line) for line in file]


def weights(folder="run") -> dict[str, torch.Tensor]:
    return load_file(f"{folder}/model/model.safetensors")


def initial(overrides) -> dict[str, torch.Tensor]:
    """The weights that a run of these overrides starts from."""
    config, *rest = overrides
    settings: Settings = load_settings(config.removeprefix("--config="), rest)
    return task_4.build(prepare(settings), settings).state_dict()


def trained(shell, overrides, *more) -> dict[str, torch.Tensor]:
    ended = shell(task_4, *overrides, *more)
    assert ended.status == 0, ended.err
    folder = next((word for word in reversed(more) if word.startswith("output_dir=")), "output_dir=run")
    return weights(folder.partition("=")[2])
