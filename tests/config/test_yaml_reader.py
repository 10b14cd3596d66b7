import os
import re

import pytest
from settings_text import load, refused

from multitask.common.errors import InputError
from multitask.config.loading import load_settings


@pytest.mark.parametrize(
    ("text", "value"),
    [("2e-5", 2e-5), ("1E3", 1000.0), (".5", 0.5), ("012", 12.0), ("7", 7.0)],
)
def test_numbers_are_read_as_in_yaml_1_2(text, value):
    assert load(f"training: {{learning_rate: {text}}}").training.learning_rate == value


def test_words_are_not_read_as_numbers_dates_or_booleans():
    s = load("data: {train: [no, 2024-01-01, 1:30]}\noutput_dir: off\nmodel: {freeze_backbone: no}")
    assert (s.data.train, s.output_dir) == (("no", "2024-01-01", "1:30"), "off")
    assert s.model.freeze_backbone is False


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
        ("training.seed: 3", "write `seed:` indented under `training:`"),
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
def test_bad_files_are_refused(text, reason):
    assert re.search(reason, refused(text))


def test_folders_pipes_and_devices_are_refused(tmp_path):
    pipe = tmp_path / "pipe.yml"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, "/dev/zero"):
        with pytest.raises(InputError, match=f"^{path}: is no file$"):
            load_settings(path)
