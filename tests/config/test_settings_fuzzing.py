"""Arbitrary and mutated settings files and overrides are read or refused.

The property is tried with a few examples, and with ten thousand under `-m exhaustive`."""

import tempfile
from pathlib import Path

import yaml
from fuzzing import VALUES, examples, exhaustive, mutated, result_or_none
from hypothesis import given
from hypothesis import strategies as st

from multitask.config.help_text import render_config, setting_keys
from multitask.config.loading import load_settings
from multitask.config.schema import Settings


@st.composite
def documents(draw) -> dict:
    """Values of any kind for keys that exist, and for a few that don't."""
    document: dict = {}
    for key in draw(st.lists(st.sampled_from([*setting_keys(), "no.such.key", "training.lr"]), max_size=6)):
        *sections, name = key.split(".")
        inner = document
        for section in sections:
            if not isinstance(inner.get(section), dict):
                inner[section] = {}
            inner = inner[section]
        inner[name] = draw(VALUES)
    return document


CONFIGS = (
    st.binary(max_size=100)
    | mutated(render_config(Settings()).encode())
    | documents().map(
        lambda document: yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "replace")
    )
)
BAD_TEXT = st.text(st.characters(codec=None), max_size=20)
OVERRIDES = st.lists(
    st.tuples(st.sampled_from([*setting_keys()]) | BAD_TEXT, BAD_TEXT | VALUES.map(str)).map("=".join),
    max_size=3,
)


def check_settings(content: bytes, overrides: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.yml"
        path.write_bytes(content)
        loaded = result_or_none(load_settings, path, overrides)
        assert loaded is None or isinstance(loaded, Settings)
        if loaded is not None:
            path.write_text(render_config(loaded), encoding="utf-8")
            assert load_settings(path) == loaded


@examples(80)
@given(CONFIGS, OVERRIDES)
def test_settings_are_read_or_refused(content, overrides):
    check_settings(content, overrides)


@exhaustive
@given(CONFIGS, OVERRIDES)
def test_settings_are_read_or_refused_exhaustively(content, overrides):
    check_settings(content, overrides)
