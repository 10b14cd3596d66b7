"""The settings as text: a config.yml with its comments, and the list of keys that --help prints."""

import textwrap
from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import BaseModel

from multitask.config import yaml_reader
from multitask.config.schema import Settings


@cache
def setting_keys(section: type[BaseModel] = Settings, prefix: str = "") -> dict[str, Any]:
    """Every key, dotted, in order → its pydantic field; a section's own key stands before its keys."""
    found = {}
    for name, field in section.model_fields.items():
        found[prefix + name] = field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= setting_keys(field.annotation, f"{prefix}{name}.")
    return found


def flatten_settings(settings: Settings) -> dict[str, Any]:
    """Every setting by its dotted key, as JSON has it."""
    return dict(_flat(settings.model_dump(mode="json")))


def help_text() -> str:
    """A line for every key: its default and meaning."""
    lines = []
    for key, field in setting_keys().items():
        default = (
            "" if isinstance(field.default, BaseModel) else f" = {yaml_reader.format_scalar(field.default)}"
        )
        lines.append(f"  {key}{default}\n      {field.description}")
    return "\n".join(lines)


def render_config(settings: Settings) -> str:
    """Settings → the text of a config.yml that gives the same, each key with its comment."""
    lines = []
    for key, field in setting_keys().items():
        *sections, name = key.split(".")
        value: Any = settings
        for part in key.split("."):
            value = getattr(value, part)
        indent = "  " * len(sections)
        is_section = isinstance(value, BaseModel)
        lines += [""] if not sections else []
        lines += [
            f"{indent}# {line}" for line in textwrap.wrap(field.description, 100, break_on_hyphens=False)
        ]
        lines += [f"{indent}{name}:" if is_section else f"{indent}{name}: {yaml_reader.format_scalar(value)}"]
    return "\n".join(lines[1:]) + "\n"


def _flat(values: dict, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value
