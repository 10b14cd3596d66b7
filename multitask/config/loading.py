"""config.yml and `key=value` overrides → Settings, or every problem of theirs at once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from multitask.common.errors import InputError, list_problems
from multitask.common.spelling import closest_name
from multitask.config import yaml_reader
from multitask.config.help_text import setting_keys
from multitask.config.schema import LossWeights, Settings, trained_tasks
from multitask.data.corpus import window_problem
from multitask.data.labels import TASKS

_HINTS = 20  # problems that are listed; finding the key that was meant takes milliseconds
_LONGEST = 200  # characters of an override that a message repeats


def load_settings(path: str | Path | None = "config.yml", overrides: Sequence[str] = ()) -> Settings:
    """A YAML file (None: defaults only), then `key=value` overrides in order, checked together.

    Raises InputError that names every problem: unknown keys with the nearest right one, wrong values,
    contradictions. File problems carry file:line."""
    values, where, problems = yaml_reader.read_yaml(path) if path is not None else ({}, {}, [])
    for override in overrides:
        _override(values, where, problems, override)
    settings, wrong = _validated(values, where, problems)
    problems += [
        f"{next((where[key] for key in at_odds if key in where), path or 'settings')}: {text}"
        for at_odds, text in _contradictions(settings)
        if not wrong & set(at_odds)
    ]
    if problems:
        raise InputError(list_problems(problems))
    return settings


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words of a command line → (overrides `key=value`, the rest), in any order."""
    overrides = [word for word in arguments if "=" in word and not word.startswith("-")]
    return overrides, [word for word in arguments if word not in overrides]


def _override(values: dict, where: dict, problems: list[str], override: str) -> None:
    key, _, text = override.partition("=")
    source = f"command line: {override if len(override) <= _LONGEST else override[:_LONGEST] + '...'}"
    if key not in setting_keys():
        problems.append(f"{source}: unknown key{_meant(key) if len(key) <= _LONGEST else ''}")
        return
    try:
        value = yaml_reader.parse_value(text)
    except InputError as error:
        problems.append(f"{source}: {error}")
        return
    *sections, name = key.split(".")
    for section in sections:
        if not isinstance(values.get(section), dict):
            values[section] = {}
        values = values[section]
    values[name] = value
    where[key] = "command line"


def _meant(key: str) -> str:
    near = closest_name(key, setting_keys())
    return f"; did you mean {near}?" if near else ""


def _validated(values: dict, where: dict, problems: list[str]) -> tuple[Settings, set[str]]:
    """Settings of what is right, and the keys that are wrong; each wrong one adds to `problems`."""
    try:
        return Settings.model_validate(values), set()
    except ValidationError as error:
        wrong = {}
        for item in error.errors(include_url=False):
            place, text = _problem(item, len(wrong) < _HINTS)
            if place not in wrong:
                key = ".".join(place)
                problems.append(f"{where.get(key, 'settings')}: {key}: {text}")
                wrong[place] = key
        for place in wrong:
            _drop(values, place)
        return Settings.model_validate(values), set(wrong.values())


def _problem(item: dict, hint: bool) -> tuple[tuple[str, ...], str]:
    """One of pydantic's errors → the key's parts, and what is wrong with it, with the key that was meant."""
    parts = tuple(part for part in item["loc"] if isinstance(part, str))
    if item["type"] == "extra_forbidden":
        if parts[-1] in setting_keys():
            *sections, name = parts[-1].split(".")
            return parts, f"unknown key; in a file `{name}:` stands indented under `{sections[-1]}:`"
        return parts, f"unknown key{_meant('.'.join(parts)) if hint else ''}"
    # a union's branch and a list's place are parts of the location, but not of the key
    known = next(parts[:n] for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in setting_keys())
    message = item["msg"].removeprefix("Value error, ")
    return known, f"{message[:1].lower()}{message[1:]} (it is {_short(item['input'])})"


def _drop(values: dict, place: tuple[str, ...]) -> None:
    for part in place[:-1]:
        values = values.get(part, {})
    if isinstance(values, dict):
        values.pop(place[-1], None)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _contradictions(settings: Settings) -> list[tuple[tuple[str, ...], str]]:
    """(the keys that are at odds, what is wrong and what to do), for all that needs no data to be seen."""
    m, t = settings.model, settings.training
    found = []
    trained = trained_tasks(settings)
    if m.freeze_backbone and all(getattr(m, f"freeze_{task}") for task in trained):
        frozen = [f"model.freeze_{part}" for part in (*trained, "backbone")]
        text = f"nothing is left to train: set one of {', '.join(frozen)} to false"
        found.append(((*frozen, "training.task"), text))
    if m.freeze_backbone and m.freeze_layers:
        text = f"model.freeze_layers is {m.freeze_layers}, but model.freeze_backbone is true: set it to false"
        found.append((("model.freeze_layers", "model.freeze_backbone"), text))
    if m.freeze_backbone and m.lora.rank:
        text = f"model.lora.rank is {m.lora.rank}, but model.freeze_backbone is true: set it to false"
        found.append((("model.lora.rank", "model.freeze_backbone"), text))
    of_the_encoder = {
        "layer_decay": t.layer_decay < 1,
        "gradient_checkpointing": t.gradient_checkpointing,
        "gradient_cosine": t.gradient_cosine,
    }
    for name in [name for name, asked in of_the_encoder.items() if asked and m.freeze_backbone]:
        text = f"training.{name} needs an encoder that trains: set model.freeze_backbone to false"
        found.append(((f"training.{name}", "model.freeze_backbone"), text))
    of_two_tasks = {"loss_weighting": t.loss_weighting != "fixed", "gradient_cosine": t.gradient_cosine}
    for name in [name for name, asked in of_two_tasks.items() if asked and len(trained) < 2]:
        text = f"training.{name} is about two tasks, but training.task is {t.task}"
        found.append(((f"training.{name}", "training.task"), text))
    if t.loss_weighting != "fixed" and t.loss_weights != LossWeights():
        text = f"training.loss_weighting is {t.loss_weighting}: training.loss_weights must be 1"
        keys_of_weights = [f"training.loss_weights.{task}" for task in TASKS]
        found.append(((*keys_of_weights, "training.loss_weights", "training.loss_weighting"), text))
    if problem := window_problem(m.max_length, m.stride):
        text = f"model.stride is {m.stride}; with model.max_length {m.max_length} {problem}"
        found.append((("model.stride", "model.max_length"), text))
    if settings.data.sampling_temperature is not None and len(set(settings.data.train)) < 2:
        text = "data.sampling_temperature mixes files, but data.train has only one"
        found.append((("data.sampling_temperature", "data.train"), text))
    if t.early_stopping and not settings.data.dev:
        text = "training.early_stopping needs data.dev to see when the score no longer rises"
        found.append((("training.early_stopping", "data.dev"), text))
    return found
