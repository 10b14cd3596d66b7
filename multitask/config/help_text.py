"""The settings as text: config.yml with comments, and the list of keys in --help."""

import textwrap
from functools import cache, reduce
from operator import getitem
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
    values = settings.model_dump(mode="json")
    keys = (key for key, field in setting_keys().items() if not isinstance(field.default, BaseModel))
    return {key: reduce(getitem, key.split("."), values) for key in keys}


def help_text() -> str:
    """Every key with its default and description, as --help prints them."""
    lines, defaults = [], flatten_settings(Settings())
    for key, field in setting_keys().items():
        default = f" = {yaml_reader.format_scalar(defaults[key])}" if key in defaults else ""
        lines.append(f"  {key}{default}\n      {description(field)}")
    return "\n".join(lines)


def render_config(settings: Settings) -> str:
    """The text of a config.yml with these settings, each key under its description."""
    lines, values = [], flatten_settings(settings)
    for key, field in setting_keys().items():
        *sections, name = key.split(".")
        indent = "  " * len(sections)
        lines += [""] if not sections else []
        comment = textwrap.wrap(description(field), 100, break_on_hyphens=False)
        lines += [f"{indent}# {line}" for line in comment]
        value = f" {yaml_reader.format_scalar(values[key])}" if key in values else ""
        lines += [f"{indent}{name}:{value}"]
    return "\n".join(lines[1:]) + "\n"
