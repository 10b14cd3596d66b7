"""Which run goes on, and whether it is still the same one: its settings, data, encoder and machine."""

import json
import logging
import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from multitask.common import distributed
from multitask.common.checksums import sha256_of
from multitask.common.errors import InputError, list_problems
from multitask.config.help_text import flatten_settings
from multitask.config.schema import Settings
from multitask.data.formats import source_files
from multitask.training.checkpoint import Checkpoint
from multitask.training.preparation import Prepared

logger = logging.getLogger(__name__)

CONFIG, METRICS = "config.yml", "metrics.jsonl"
_ENCODER = (
    *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    *("vocab.txt", "special_tokens_map.json", "added_tokens.json"),
)
_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "safetensors")
_FREE = (  # change no result
    *("cache_dir", "device"),
    *("training.checkpoint_every", "training.feature_memory", "training.tracker"),
)


@dataclass(frozen=True)
class Origin:
    """What a run's result depends on besides its state: what must not differ, and what should not."""

    settings: dict[str, Any]  # by dotted key
    sources: dict[str, str]  # SHA-256 of the data files and of the encoder's
    processes: int
    machine: dict[str, Any]


def origin_of(settings: Settings, prepared: Prepared, device: torch.device) -> Origin:
    """The origin of a run of these settings, which are resolved."""
    data = settings.data
    paths = dict.fromkeys([*data.train, *data.dev, *data.test])
    files = {str(file): file for path in paths for file in source_files(path)}
    encoder = prepared.backbone.folder
    files |= {f"the encoder's {name}": encoder / name for name in _ENCODER if (encoder / name).is_file()}
    machine = {
        "device": device.type,
        "processor": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }
    return Origin(
        {
            key: value
            for key, value in flatten_settings(settings).items()
            if key not in (*_FREE, "output_dir")
        },
        {name: sha256_of(file) for name, file in files.items()},
        distributed.world_size(),
        machine,
    )


def find_run(name: str, runs: Path) -> Path:
    """The folder of a run; "" is the newest in `runs`. Raises InputError where there is none."""
    if name:
        if not (Path(name) / CONFIG).is_file():
            raise InputError(f"--resume: {name}: no {CONFIG} in it, so it is no run's folder")
        path = Path(name)
        return Path(os.path.relpath(path.resolve())) if path.is_symlink() else path
    found = [path for path in runs.glob("*") if (path / CONFIG).is_file() and not path.is_symlink()]
    if not found:
        raise InputError(f"--resume: there is no run in {runs}; name its folder: --resume FOLDER")
    return max(found, key=lambda path: os.stat(path / CONFIG).st_mtime_ns)


def is_finished(run: Path) -> bool:
    """Whether a run has come to its end: the last line of its metrics is that of the test set."""
    try:
        last = (run / METRICS).read_bytes().splitlines()[-1]
        return "test" in json.loads(last)
    except (OSError, IndexError, ValueError, TypeError):
        return False


def check_settings(asked: Settings, run: Settings, where: Path) -> None:
    """Raises InputError where a run would go on with other settings than its own, with every difference."""
    before, now = (flatten_settings(settings) for settings in (run, asked))
    _refuse(_differences(before, now, _FREE), f"{where / CONFIG} has other settings, and a run keeps its own")


def check_origin(now: Origin, checkpoint: Checkpoint) -> None:
    """Raises InputError where data, settings, encoder or number of processes are not those of a checkpoint;
    says where the machine is another."""
    try:
        before = Origin(**checkpoint.facts["origin"])
    except (KeyError, TypeError):
        raise InputError(f"{checkpoint.path}: it is no checkpoint of a run of task_4.py") from None
    if now.processes != before.processes:
        raise InputError(
            f"{checkpoint.path} is of {before.processes} processes, and there are {now.processes} now: "
            "their steps are of other sizes"
        )
    _refuse(_differences(before.settings, now.settings), f"{checkpoint.path} is of other settings")
    changed = []
    for name in before.sources | now.sources:
        if before.sources.get(name) != now.sources.get(name):
            both = name in before.sources and name in now.sources
            changed.append(f"{name} {'has changed' if both else 'is new or gone'}")
    _refuse(changed, f"{checkpoint.path} is of other data or another encoder; a new run can have them")
    for line in _differences(before.machine, now.machine):
        logger.warning(f"warning: {line}; the result may differ in its last digits")


def _differences(before: dict, now: dict, free: tuple[str, ...] = ()) -> list[str]:
    return [
        f"{key} was {_shown(before, key)} and is {_shown(now, key)}"
        for key in before | now
        if key not in free and before.get(key, ...) != now.get(key, ...)
    ]


def _shown(values: dict, key: str) -> str:
    return json.dumps(values[key]) if key in values else "not there"


def _refuse(differences: list[str], why: str) -> None:
    if differences:
        raise InputError(list_problems([f"{why}:", *differences]))
