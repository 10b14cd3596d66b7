"""The settings as text: config.yml with comments, and the list of keys in --help."""

import textwrap
from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from multitask.config import yaml_reader
from multitask.config.schema import Settings


@cache
def setting_keys(section: type[BaseModel] = Settings, prefix: str = "") -> dict[str, FieldInfo]:
    """Every dotted key, in order → its pydantic field; a section comes before its keys."""
    fields = {}
    for name, field in section.model_fields.items():
        fields[prefix + name] = field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            fields |= setting_keys(field.annotation, f"{prefix}{name}.")
    return fields


def description(field: FieldInfo) -> str:
    """A setting's docstring in the schema, as one line."""
    return " ".join((field.description or "").split())


def flatten_settings(settings: Settings) -> dict[str, Any]:
    """Every setting, as a JSON value, by its dotted key."""
    return dict(_flatten(settings.model_dump(mode="json")))


def help_text() -> str:
    """Every key with its default and description, as --help prints them."""
    lines = []
    for key, field in setting_keys().items():
        is_section = isinstance(field.default, BaseModel)
        default = "" if is_section else f" = {yaml_reader.format_scalar(field.default)}"
        lines.append(f"  {key}{default}\n      {description(field)}")
    return "\n".join(lines)


def render_config(settings: Settings) -> str:
    """The text of a config.yml with these settings, each key under its description."""
    lines = []
    for key, field in setting_keys().items():
        *sections, name = key.split(".")
        value: Any = settings
        for part in key.split("."):
            value = getattr(value, part)
        indent = "  " * len(sections)
        is_section = isinstance(value, BaseModel)
        lines += [""] if not sections else []
        comment = textwrap.wrap(description(field), 100, break_on_hyphens=False)
        lines += [f"{indent}# {line}" for line in comment]
        lines += [f"{indent}{name}:" if is_section else f"{indent}{name}: {yaml_reader.format_scalar(value)}"]
    return "\n".join(lines[1:]) + "\n"


def _flatten(values: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
