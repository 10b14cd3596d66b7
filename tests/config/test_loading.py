import os
import re

import pytest
import yaml
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from multitask.common.errors import InputError
from multitask.config.help_text import help_text, render_config, setting_keys
from multitask.config.loading import load_settings, split_overrides
from multitask.config.schema import Settings


@pytest.fixture
def load(tmp_path):
    def load_text(text: str | bytes, *overrides: str) -> Settings:
        path = tmp_path / "c.yml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_settings(path, overrides)

    return load_text


def refused(load, text, *overrides) -> str:
    with pytest.raises(InputError) as error:
        load(text, *overrides)
    return re.sub(r"\S*/c\.yml", "c.yml", str(error.value))


def test_config_yml_has_every_key_with_the_comment_that_help_prints():
    # values are the user's to edit, so only keys and comments are compared
    def comments(text):
        return [re.sub(r": .*", ":", line) if "#" not in line else line for line in text.splitlines()]

    assert comments((ROOT / "config.yml").read_text()) == comments(render_config(Settings()))
    for key, field in setting_keys().items():
        assert f"  {key}" in help_text()
        assert field.description in help_text()


def test_defaults_are_those_of_the_design():
    s = Settings()
    assert (s.model.freeze_backbone, s.model.num_classes_task_a, s.model.num_labels_task_b) == (True, 3, 4)
    t = s.training
    assert (t.learning_rate, t.head_learning_rate, t.num_epochs, t.batch_size, t.task) == (
        2e-5,
        1e-3,
        10,
        16,
        "both",
    )


def test_settings_come_back_from_their_text(load):
    changed = load(
        "", "training.learning_rate=3e-7", "data.train=[a b, 'c: #d']", "data.dev=null", "output_dir=no"
    )
    assert load(render_config(changed)) == changed
    assert yaml.safe_load(render_config(changed))["training"]["learning_rate"] == 3e-7, (
        "YAML 1.1 readers agree"
    )


def test_overrides_go_over_the_file_and_the_later_one_wins(load):
    s = load(
        "training: {seed: 3, batch_size: 8}\n",
        "training.seed=4",
        "training.seed=5",
        "training.loss_weights={task_a: 2}",
    )
    assert (s.training.seed, s.training.batch_size, s.training.loss_weights.task_a) == (5, 8, 2.0)


@pytest.mark.parametrize(
    ("text", "value"),
    [("2e-5", 2e-5), ("1E3", 1000.0), (".5", 0.5), ("012", 12.0), ("7", 7.0)],
)
def test_numbers_are_read_as_people_mean_them(load, text, value):
    assert load(f"training: {{learning_rate: {text}}}").training.learning_rate == value


def test_words_are_not_numbers_dates_or_booleans(load):
    s = load("data: {train: [no, 2024-01-01, 1:30]}\noutput_dir: off\nmodel: {freeze_backbone: no}")
    assert (s.data.train, s.output_dir) == (("no", "2024-01-01", "1:30"), "off")
    assert s.model.freeze_backbone is False


def test_all_problems_are_reported_at_once_with_their_place(load):
    text = "training:\n  lr: 3\n  num_epochs: many\nmodle: {}\nmodel:\n  stride: 500\n  pooling: max\n"
    assert refused(load, text, "learning_rate=1", "training.seed=-1").splitlines() == [
        "command line: learning_rate=1: unknown key; did you mean training.learning_rate?",
        "c.yml:7: model.pooling: input should be 'cls' or 'mean' (it is 'max')",
        "c.yml:3: training.num_epochs: input should be a valid integer, unable to parse string as an integer "
        "(it is 'many')",
        "command line: training.seed: input should be greater than or equal to 0 (it is -1)",
        "c.yml:2: training.lr: unknown key; did you mean training.learning_rate?",
        "c.yml:4: modle: unknown key; did you mean model?",
        "c.yml:6: model.stride is 500; with model.max_length 128 it is below 126",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &x 1\nb: *x", "c.yml:2: .*aliases"),
        (
            "training: {seed: 1}\ntraining: {seed: 2}",
            "c.yml:2: training: this key stands twice; first at c.yml:1",
        ),
        ("training:\n  seed: 1\n  seed: 2", "c.yml:3: training.seed: this key stands twice"),
        ("[" * 20_000, "nested too deeply"),
        ("a: " + "{a: " * 20_000, "nested too deeply"),
        ("- 1", "is a list of `key: value`"),
        ("training: [", "c.yml:1: not YAML"),
        ("\x00", "not YAML"),
        (b"\xff\xfe\xfa", "not UTF-8"),
        ("#" * (1 << 20) + "\n", "a settings file has at most"),
        ("x: !!python/object/apply:os.system [ls]", "c.yml:1: x: the tag .*os.system is not read"),
        ("training: {seed: !!int x}", "training.seed: not a int: x"),
        ("training: {seed: " + "9" * 5000 + "}", "training.seed: not a int"),
        ("training.seed: 3", "`seed:` stands indented under `training:`"),
        ("training: 5", "training: input should be a valid dictionary"),
        ("? [a, b]\n: 1", "unknown key"),
        ("training: {<<: {seed: 1}}", "training.<<: unknown key"),
        ("training: {seed: 1}\n---\ntraining: {seed: 2}", "c.yml:2: .*another document"),
        ('"\\ud800": 1', r"c.yml:1: '\\ud800': this is no key"),
        ('output_dir: "\\ud800"', "c.yml:1: output_dir: .*unicode"),
        ('output_dir: "a\\0b"', "c.yml:1: output_dir: a NUL character"),
        ("output_dir: a\x07", "not YAML"),
        ("output_dir: !!null x", "output_dir: not a null: x"),
        ("model: {freeze_backbone: !!bool maybe}", "model.freeze_backbone: not a bool: maybe"),
        ("output_dir: !!binary aGk=", "output_dir: the tag .*binary is not read"),
        ("training: {}".encode("utf-16"), "not UTF-8"),
        ('? "' + "k " * 1000 + '"\n: 1', "this is no key of a setting$"),
    ],
)
def test_files_that_are_refused(load, text, reason):
    assert re.search(reason, refused(load, text))


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
            ["training.loss_weighting=uncertainty", "training.loss_weights.task_b=2"],
            "training.loss_weighting is uncertainty: training.loss_weights must be 1",
        ),
        (["data.sampling_temperature=2"], "data.sampling_temperature mixes files, but data.train has only"),
        (["data.sampling_temperature=2", "data.train=[a, a]"], "data.sampling_temperature mixes files"),
        (["data.sampling_temperature=0.5", "data.train=[a, b]"], "data.sampling_temperature: input should"),
        (["training.layer_decay=0"], "training.layer_decay: input should be greater than 0"),
        (["training.early_stopping=2", "data.dev=null"], "early_stopping needs data.dev"),
        (["device=tpu"], "device: a device is cpu, cuda or cuda:1"),
        (["training.batch_size=true"], "a number is wanted"),
        (["training.learning_rate=.nan"], "finite"),
        (["data.train=null"], "data.train"),
        (["data.train=[a"], "not YAML"),
        (["model=3"], "model: input should be a valid dictionary"),
    ],
)
def test_requests_that_make_no_sense_are_refused(load, overrides, reason):
    assert reason in refused(load, "", *overrides)


def test_a_missing_file_is_named():
    with pytest.raises(InputError, match="^nowhere.yml: no such file"):
        load_settings("nowhere.yml")


def test_many_and_long_problems_make_a_short_message(load):
    message = refused(load, "\n".join(f"{'k' * 50}{i}: 1" for i in range(3000)))
    assert message.splitlines()[-1] == "... and 2,980 more"
    assert len(refused(load, "", "k" * 100_000 + "=1", "training.seed=" + "9" * 100_000)) < 1000


def test_a_settings_file_is_a_file(tmp_path):
    pipe = tmp_path / "pipe.yml"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, "/dev/zero"):
        with pytest.raises(InputError, match=f"^{path}: is no file$"):
            load_settings(path)


@pytest.mark.parametrize("override", ["output_dir={}", "{}=1", 'data.train="{}"', "data.train=[{}]", "{}"])
def test_bytes_of_the_command_line_that_are_no_text(override):
    with pytest.raises(InputError):
        load_settings(None, [override.format(os.fsdecode(b"caf\xe9"))])


@given(st.text(max_size=60))
def test_any_text_gives_settings_or_one_clear_error(text):
    try:
        load_settings(None, [f"data.train={text}", f"output_dir={text}"])
    except InputError as error:
        assert str(error)


def test_overrides_and_options_come_in_any_order():
    words = ["--config", "c.yml", "a.b=1", "--resume=runs/x", "c=d=e"]
    assert split_overrides(words) == (["a.b=1", "c=d=e"], ["--config", "c.yml", "--resume=runs/x"])
