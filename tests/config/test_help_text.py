import re

from conftest import ROOT

from multitask.config.help_text import description, help_text, render_config, setting_keys
from multitask.config.schema import Settings


def test_config_yml_and_help_describe_every_setting():
    # values are the user's to edit, so only keys and comments are compared
    def comments(text):
        return [re.sub(r": .*", ":", line) if "#" not in line else line for line in text.splitlines()]

    assert comments((ROOT / "config.yml").read_text()) == comments(render_config(Settings()))
    for key, field in setting_keys().items():
        assert f"  {key}" in help_text()
        assert description(field) and description(field) in help_text()


def test_the_main_defaults():
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
