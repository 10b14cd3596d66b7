import os

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from settings_text import load, refused

from multitask.common.errors import InputError
from multitask.config.help_text import render_config
from multitask.config.loading import load_settings, split_overrides


def test_settings_survive_rendering_and_loading():
    changed = load(
        "", "training.learning_rate=3e-7", "data.train=[a b, 'c: #d']", "data.dev=null", "output_dir=no"
    )
    assert load(render_config(changed)) == changed
    assert yaml.safe_load(render_config(changed))["training"]["learning_rate"] == 3e-7, (
        "YAML 1.1 readers agree"
    )


def test_overrides_replace_values_of_the_file_and_the_last_one_wins():
    s = load(
        "training: {seed: 3, batch_size: 8}\n",
        "training.seed=4",
        "training.seed=5",
        "training.loss_weights={task_a: 2}",
    )
    assert (s.training.seed, s.training.batch_size, s.training.loss_weights.task_a) == (5, 8, 2.0)


def test_all_problems_are_reported_at_once_with_their_place():
    text = "training:\n  lr: 3\n  num_epochs: many\nmodle: {}\nmodel:\n  stride: 500\n  pooling: max\n"
    text += "  max_length: 128\n"
    assert refused(text, "learning_rate=1", "training.seed=-1").splitlines() == [
        "command line: learning_rate=1: unknown key; did you mean training.learning_rate?",
        "c.yml:7: model.pooling: input should be 'auto', 'cls' or 'mean' (it is 'max')",
        "c.yml:3: training.num_epochs: input should be a valid integer, unable to parse string as an integer "
        "(it is 'many')",
        "command line: training.seed: input should be greater than or equal to 0 (it is -1)",
        "c.yml:2: training.lr: unknown key; did you mean training.learning_rate?",
        "c.yml:4: modle: unknown key; did you mean model?",
        "c.yml:6: model.stride is 500; with model.max_length 128 it must be below 126",
    ]


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["model.freeze_task_a=true", "model.freeze_task_b=true"], "nothing is left to train"),
        (["training.task=task_b", "model.freeze_task_b=true"], "nothing is left to train"),
        (["model.freeze_layers=2"], "model.freeze_layers is 2, but model.freeze_backbone is true"),
        (["training.layer_decay=0.9"], "training.layer_decay needs an encoder that trains"),
        (["training.gradient_checkpointing=true"], "training.gradient_checkpointing needs an encoder"),
        (["model.lora.rank=4"], "model.lora.rank is 4, but model.freeze_backbone is true"),
        (["model.lora.targets=[query, mlp]"], "targets: input should be 'query', 'key', 'value', 'att"),
        (["model.lora.targets=null"], "model.lora.targets: "),
        (["training.gradient_cosine=true"], "training.gradient_cosine needs an encoder that trains"),
        (
            ["training.gradient_cosine=true", "model.freeze_backbone=false", "training.task=task_a"],
            "training.gradient_cosine is about two tasks, but training.task is task_a",
        ),
        (["training.loss_weighting=dwa", "training.task=task_b"], "training.loss_weighting is about two"),
        (
            ["training.loss_weighting=uncertainty", "training.loss_weights.task_b=3"],
            "training.loss_weighting is uncertainty: leave training.loss_weights at the default",
        ),
        (["data.sampling_temperature=2"], "data.sampling_temperature mixes files, but data.train has only"),
        (["data.sampling_temperature=2", "data.train=[a, a]"], "data.sampling_temperature mixes files"),
        (["data.sampling_temperature=0.5", "data.train=[a, b]"], "data.sampling_temperature: input should"),
        (["training.layer_decay=0"], "training.layer_decay: input should be greater than 0"),
        (["training.early_stopping=2", "data.dev=null"], "early_stopping needs data.dev"),
        (["device=tpu"], "device: a device is auto, cpu, mps, cuda or cuda:1"),
        (["training.batch_size=true"], "a number is expected"),
        (["training.learning_rate=.nan"], "finite"),
        (["data.train=null"], "data.train"),
        (["data.train=[a"], "not YAML"),
        (["model=3"], "model: input should be a valid dictionary"),
    ],
)
def test_wrong_values_and_contradictions_are_refused(overrides, reason):
    assert reason in refused("", *overrides)


def test_a_missing_file_is_named():
    with pytest.raises(InputError, match="^nowhere.yml: no such file"):
        load_settings("nowhere.yml")


def test_many_and_long_problems_make_a_short_message():
    message = refused("\n".join(f"{'k' * 50}{i}: 1" for i in range(3000)))
    assert message.splitlines()[-1] == "... and 2,980 more"
    assert len(refused("", "k" * 100_000 + "=1", "training.seed=" + "9" * 100_000)) < 1000


@pytest.mark.parametrize("override", ["output_dir={}", "{}=1", 'data.train="{}"', "data.train=[{}]", "{}"])
def test_undecodable_bytes_on_the_command_line_are_refused(override):
    with pytest.raises(InputError):
        load_settings(None, [override.format(os.fsdecode(b"caf\xe9"))])


@given(st.text(max_size=60))
def test_any_override_gives_settings_or_an_input_error(text):
    try:
        load_settings(None, [f"data.train={text}", f"output_dir={text}"])
    except InputError as error:
        assert str(error)


def test_overrides_and_options_may_be_mixed_in_any_order():
    words = ["--config", "c.yml", "a.b=1", "--resume=runs/x", "c=d=e"]
    assert split_overrides(words) == (["a.b=1", "c=d=e"], ["--config", "c.yml", "--resume=runs/x"])


def test_paths_of_options_may_hold_equals_signs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run = 1").mkdir()
    words = ["--config", "a=b.yml", "--resume", "run = 1", "c.d=2"]
    assert split_overrides(words) == (["c.d=2"], words[:4])
    assert split_overrides(["--resume", "c.d=2"]) == (["c.d=2"], ["--resume"])
