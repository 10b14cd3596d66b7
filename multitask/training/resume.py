"""Checks that a resumed run has the same settings, data and encoder, and says how to train on if not."""

import json
import logging
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from multitask.common import distributed
from multitask.common.checksums import folder_hash, sha256_of
from multitask.common.errors import InputError, list_problems
from multitask.config.help_text import flatten_settings
from multitask.config.schema import Settings
from multitask.config.yaml_reader import format_scalar
from multitask.data.formats.files import source_files
from multitask.data.words import RULE
from multitask.training.checkpoint import Checkpoint
from multitask.training.existing_runs import CONFIG, MODEL, run_settings
from multitask.training.preparation import Prepared

logger = logging.getLogger(__name__)

_ENCODER = (
    *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    *("vocab.txt", "special_tokens_map.json", "added_tokens.json"),
)
_DATA = ("data.train", "data.dev", "data.test")
_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "safetensors")
_FREE = (  # settings that a resumed run may change: they change no result
    *("cache_dir", "device", "training.cuda_graphs"),
    *("training.checkpoint_every", "training.feature_memory", "training.tracker"),
)


@dataclass(frozen=True)
class Origin:
    """What a run's result depends on besides its state. A resumed run must have the same settings, sources
    and processes, and should have the same machine."""

    settings: dict[str, Any]  # by dotted key
    sources: dict[str, str]  # SHA-256 of the data files, of the encoder's and of the teacher
    processes: int
    machine: dict[str, Any]


def origin_of(settings: Settings, prepared: Prepared, device: torch.device) -> Origin:
    """The origin of a run with these resolved settings."""
    data = settings.data
    paths = dict.fromkeys([*data.train, *data.dev, *data.test])
    files = {str(file): file for path in paths for file in source_files(path)}
    encoder = prepared.backbone.folder
    files |= {f"the encoder's {name}": encoder / name for name in _ENCODER if (encoder / name).is_file()}
    on_gpu = device.type == "cuda"
    processor = torch.cuda.get_device_name(device) if on_gpu else torch.backends.cpu.get_cpu_capability()
    machine = {
        "device": device.type,
        "processor": processor,
        "threads": torch.get_num_threads(),
        "rule of words": RULE,
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }
    used = {k: v for k, v in flatten_settings(settings).items() if k not in (*_FREE, "output_dir")}
    hashes = {name: sha256_of(file) for name, file in files.items()}
    if prepared.soft and (teacher := prepared.soft.teacher.folder):
        hashes["the teacher"] = folder_hash(teacher)
    return Origin(used, hashes, distributed.world_size(), machine)


def check_finished(run: Path, overrides: Sequence[str]) -> None:
    """Raises InputError if the overrides ask a finished run for something else than it did."""
    before, now = (flatten_settings(run_settings(run, words)) for words in ((), overrides))
    if changes := _changes(before, now):
        raise InputError(
            f"{run} is finished, and keeps its settings. To train its best model on with these: "
            f"{train_on_command(run, changes)}"
        )


def train_on_command(run: Path, changes: Mapping[str, Any]) -> str:
    """The command that starts a new run with the settings of this one but for `changes`, from its best model
    if it has one."""
    settings = {"output_dir": None, **changes}
    if (run / MODEL).exists():  # its heads are no longer new
        settings = {"model.backbone": str(run / MODEL), "model.new_heads": None, **settings}
    words = [f"{key}={format_scalar(value)}" for key, value in settings.items()]
    return shlex.join(["python", "task_4.py", "--config", str(run / CONFIG), *words])


def check_settings(settings: Settings, saved: Settings, run: Path) -> None:
    """Raises InputError with every difference if `settings` differ from the saved ones of a run."""
    before, now = flatten_settings(saved), flatten_settings(settings)
    begin = "train its best model on" if (run / MODEL).exists() else "begin"
    command = train_on_command(run, _changes(before, now))
    why = f"{run / CONFIG} has other settings; a resumed run can't change them"
    differences = _differences(_same_paths(before), _same_paths(now), _FREE)
    _raise_if_any(differences, why, f"To {begin} with these, in a new run: {command}")


def check_origin(now: Origin, checkpoint: Checkpoint) -> None:
    """Raises InputError if settings, data, encoder or number of processes differ from the checkpoint's; logs
    a warning if the machine differs."""
    try:
        before = Origin(**checkpoint.facts["origin"])
    except (KeyError, TypeError):
        raise InputError(f"{checkpoint.path}: not a checkpoint of task_4.py") from None
    if now.processes != before.processes:
        raise InputError(
            f"{checkpoint.path} was written with {before.processes} processes, this run has {now.processes}: "
            "the batch of a step would have another size"
        )
    # an earlier version had no other token head, and its settings lack those that were added since
    defaults = {**flatten_settings(Settings()), "model.token_head": "linear"}
    settings = {key: defaults.get(key) for key in now.settings} | before.settings
    differences = _differences(_same_paths(settings), _same_paths(now.settings))
    _raise_if_any(differences, f"{checkpoint.path} was made with other settings")
    changed = []
    old, new = ({os.path.normpath(name): sha for name, sha in o.sources.items()} for o in (before, now))
    for name in old | new:
        if old.get(name) != new.get(name):
            both = name in old and name in new
            changed.append(f"{name} {'has changed' if both else 'was added or removed'}")
    why = f"{checkpoint.path} was made with other data or another encoder; start a new run to use these"
    _raise_if_any(changed, why)
    for line in _differences(before.machine, now.machine):
        logger.warning(f"warning: {line}; the result may differ")


def _changes(before: dict, now: dict) -> dict[str, Any]:
    """The values of settings that a resumed run can't change."""
    kept = (*_FREE, "output_dir")
    before, now = _same_paths(before), _same_paths(now)
    return {key: value for key, value in now.items() if key not in kept and before.get(key) != value}


def _same_paths(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings in which ./a.jsonl is a.jsonl."""
    data = {key: [*map(os.path.normpath, settings[key])] for key in _DATA if settings.get(key)}
    return settings | data


def _differences(before: dict, now: dict, free: tuple[str, ...] = ()) -> list[str]:
    return [
        f"{key} was {_text(before, key)} and is {_text(now, key)}"
        for key in before | now
        if key not in free and before.get(key, ...) != now.get(key, ...)
    ]


def _text(values: dict, key: str) -> str:
    return json.dumps(values[key]) if key in values else "missing"


def _raise_if_any(differences: list[str], why: str, *then: str) -> None:
    if differences:
        raise InputError("\n".join([list_problems([f"{why}:", *differences]), *then]))
