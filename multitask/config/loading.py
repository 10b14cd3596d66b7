"""Settings from config.yml and `key=value` overrides, with all problems reported at once."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from os.path import isdir
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from multitask.common.errors import InputError, list_problems
from multitask.common.spelling import closest_name
from multitask.config import yaml_reader
from multitask.config.help_text import setting_keys
from multitask.config.schema import SCORED_TASK, LossWeights, Settings, trained_tasks
from multitask.data.corpus import window_problem
from multitask.data.labels import TASKS

_MAX_SUGGESTIONS = 20  # as many problems are listed, and each search for the closest key takes milliseconds
_MAX_SHOWN = 200  # characters of an override that a message repeats


def load_settings(path: str | Path | None = "config.yml", overrides: Sequence[str] = ()) -> Settings:
    """Read a YAML file (None: defaults only), apply `key=value` overrides in order, and check the result.

    Raises InputError that lists every problem, with its file:line: unknown keys and the closest known one,
    wrong values, contradictions."""
    values, places, problems = yaml_reader.read_yaml(path) if path is not None else ({}, {}, [])
    for override in overrides:
        _override(values, places, problems, override)
    settings, wrong = _validate(values, places, problems)
    problems += [
        f"{next((places[key] for key in keys if key in places), path or 'settings')}: {text}"
        for keys, text in _contradictions(settings)
        if not wrong & set(keys)
    ]
    if problems:
        raise InputError(list_problems(problems))
    return settings


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line's words → (overrides `key=value`, the other words), in any order.

    A path may hold "=" too: after --config, and after --resume where a folder has this name."""
    overrides: list[str] = []
    rest: list[str] = []
    for before, word in pairwise(["", *arguments]):
        is_path = before == "--config" or (before == "--resume" and isdir(word))
        is_override = "=" in word and not word.startswith("-") and not is_path
        (overrides if is_override else rest).append(word)
    return overrides, rest


def _override(values: dict, places: dict[str, str], problems: list[str], override: str) -> None:
    key, _, text = override.partition("=")
    source = f"command line: {override if len(override) <= _MAX_SHOWN else override[:_MAX_SHOWN] + '...'}"
    if key not in setting_keys():
        problems.append(f"{source}: unknown key{_suggestion(key) if len(key) <= _MAX_SHOWN else ''}")
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
    places[key] = "command line"


def _suggestion(key: str) -> str:
    closest = closest_name(key, setting_keys())
    return f"; did you mean {closest}?" if closest else ""


def _validate(values: dict, places: dict[str, str], problems: list[str]) -> tuple[Settings, set[str]]:
    """Settings from the valid values, and the keys of the others. Adds a problem for each of these."""
    try:
        return Settings.model_validate(values), set()
    except ValidationError as error:
        wrong: dict[tuple[str, ...], str] = {}
        for details in error.errors(include_url=False):
            parts, text = _describe(details, suggest=len(wrong) < _MAX_SUGGESTIONS)
            if parts not in wrong:
                key = ".".join(parts)
                problems.append(f"{places.get(key, 'settings')}: {key}: {text}")
                wrong[parts] = key
        for parts in wrong:
            _remove(values, parts)
        return Settings.model_validate(values), set(wrong.values())


def _describe(details: ErrorDetails, suggest: bool) -> tuple[tuple[str, ...], str]:
    """One of pydantic's errors → (the parts of its key, what is wrong with it); may suggest a known key."""
    parts = tuple(part for part in details["loc"] if isinstance(part, str))
    if details["type"] == "extra_forbidden":
        if parts[-1] in setting_keys():
            *sections, name = parts[-1].split(".")
            return parts, f"unknown key; in a file, write `{name}:` indented under `{sections[-1]}:`"
        return parts, f"unknown key{_suggestion('.'.join(parts)) if suggest else ''}"
    # pydantic's location also holds a union's branch and a list's index, which are no parts of the key
    known = next(parts[:n] for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in setting_keys())
    message = details["msg"].removeprefix("Value error, ")
    return known, f"{message[:1].lower()}{message[1:]} (it is {_shorten(details['input'])})"


def _remove(values: dict, parts: tuple[str, ...]) -> None:
    for part in parts[:-1]:
        values = values.get(part, {})
    if isinstance(values, dict):
        values.pop(parts[-1], None)


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _contradictions(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Settings that contradict each other, as (their keys, what is wrong and what to do); needs no data."""
    m, d, t = settings.model, settings.data, settings.training
    tasks = trained_tasks(settings)
    yield from _frozen_encoder(settings)
    if len(tasks) < 2:
        for key, is_set in (
            ("training.loss_weighting", t.loss_weighting != "fixed"),
            ("training.gradient_cosine", t.gradient_cosine),
        ):
            if is_set:
                yield (key, "training.task"), f"{key} is about two tasks, but training.task is {t.task}"
    # earlier versions wrote weights of 1 where none were set
    unset = (LossWeights(), LossWeights(task_a=1, task_b=1))
    if t.loss_weighting != "fixed" and t.loss_weights not in unset:
        keys = (*(f"training.loss_weights.{task}" for task in TASKS), "training.loss_weights")
        text = f"training.loss_weighting is {t.loss_weighting}: leave training.loss_weights at the default"
        yield (*keys, "training.loss_weighting"), text
    if m.max_length != "auto" and m.stride != "auto":  # else the starting model decides
        problem = window_problem(m.max_length, m.stride)
        text = f"model.stride is {m.stride}; with model.max_length {m.max_length} {problem}"
        yield from [(("model.stride", "model.max_length"), text)] if problem else []
    for task in m.new_heads:
        if task not in tasks:
            text = f"model.new_heads has {task}, but training.task is {t.task}: the head would stay random"
            yield ("model.new_heads", "training.task"), text
        elif getattr(m, f"freeze_{task}"):
            text = f"model.new_heads has {task}, but model.freeze_{task} is true: the head would stay random"
            yield ("model.new_heads", f"model.freeze_{task}"), text
    if SCORED_TASK.get(t.select_by, tasks[0]) not in tasks:
        text = f"training.select_by is {t.select_by}, but training.task is {t.task}: choose a score of it"
        yield ("training.select_by", "training.task"), text
    if d.sampling_temperature is not None and len(set(d.train)) < 2:
        text = "data.sampling_temperature mixes files, but data.train has only one"
        yield ("data.sampling_temperature", "data.train"), text
    if t.early_stopping and not d.dev:
        text = "training.early_stopping needs data.dev to see when the score no longer rises"
        yield ("training.early_stopping", "data.dev"), text


def _frozen_encoder(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """What contradicts a frozen encoder, as from `_contradictions`."""
    m, t, tasks = settings.model, settings.training, trained_tasks(settings)
    if not m.freeze_backbone:
        return
    freeze_keys = [f"model.freeze_{part}" for part in (*tasks, "backbone")]
    if all(getattr(m, f"freeze_{task}") for task in tasks):
        text = f"nothing is left to train: set one of {', '.join(freeze_keys)} to false"
        yield (*freeze_keys, "training.task"), text
    for key, value in (("model.freeze_layers", m.freeze_layers), ("model.lora.rank", m.lora.rank)):
        if value:
            text = f"{key} is {value}, but model.freeze_backbone is true: set it to false"
            yield (key, "model.freeze_backbone"), text
    for key, is_set in (
        ("training.layer_decay", t.layer_decay < 1),
        ("training.gradient_checkpointing", t.gradient_checkpointing),
        ("training.gradient_cosine", t.gradient_cosine),
    ):
        if is_set:
            text = f"{key} needs an encoder that trains: set model.freeze_backbone to false"
            yield (key, "model.freeze_backbone"), text
