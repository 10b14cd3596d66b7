"""Finds or creates the folder of a run, and checks that a resumed run has the same settings and data."""

import json
import logging
import os
import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from multitask.common import distributed
from multitask.common.atomic_files import lock_file
from multitask.common.checksums import sha256_of
from multitask.common.errors import InputError, list_problems
from multitask.config.help_text import flatten_settings, render_config
from multitask.config.loading import load_settings
from multitask.config.schema import Settings
from multitask.data.formats.files import source_files
from multitask.data.words import RULE
from multitask.training.checkpoint import Checkpoint
from multitask.training.preparation import Prepared
from multitask.training.trackers import EVENTS

logger = logging.getLogger(__name__)

RUNS = Path("runs")
LATEST = RUNS / "latest"  # a link to the newest run with a model
CONFIG, METRICS, CHECKPOINTS, REPORT = "config.yml", "metrics.jsonl", "checkpoints", "report.html"
_START = "# relative paths begin in this folder, seen from here: "  # the first line of a run's config.yml
_ENCODER = (
    *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    *("vocab.txt", "special_tokens_map.json", "added_tokens.json"),
)
_DATA = ("data.train", "data.dev", "data.test")
_EARLIER = {
    "model.token_head": "linear",
    "model.revision": None,
}  # what an earlier version did, which had no such setting
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
    sources: dict[str, str]  # SHA-256 of the data files and of the encoder's
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
    return Origin(used, hashes, distributed.world_size(), machine)


def settings_file(run: Path, settings: Settings) -> bytes:
    """The content of a new run's config.yml: its settings, and where their relative paths begin."""
    try:
        start = os.path.relpath(os.getcwd(), run.resolve())
    except ValueError:  # on another drive of Windows
        start = os.getcwd()
    return f"{_START}{json.dumps(start)}\n{render_config(settings)}".encode()


def enter_start_folder(run: Path) -> Path:
    """Change to the folder in which a run was started, where the relative paths of its settings begin, if the
    run's data files are there → the run's path from there on."""
    with open(run / CONFIG, encoding="utf-8", errors="replace") as file:
        first = file.readline()
    try:
        begin = run.resolve() / json.loads(first.removeprefix(_START)) if first.startswith(_START) else None
    except (ValueError, TypeError):  # edited by hand
        begin = None
    if begin is None and run.resolve().parent.name == RUNS.name:  # of an earlier version
        begin = run.resolve().parent.parent
    data = load_settings(run / CONFIG).data
    files = [*data.train, *data.dev, *data.test]
    if (
        begin is None
        or begin.resolve() == Path.cwd()
        or not all(os.path.exists(begin / file) for file in files)
    ):
        return run
    path = run.resolve()
    os.chdir(begin)
    if distributed.is_first_process():
        logger.info(f"{path} was started in {Path.cwd()}: relative paths begin there")
    return path


def run_settings(run: Path, overrides: Sequence[str] = ()) -> Settings:
    """The settings of a run, from its folder. Raises InputError as `load_settings` does."""
    settings = load_settings(run / CONFIG, overrides)
    if settings.model.token_head != "auto":
        return settings
    # a run's config.yml has what was chosen; the runs of an earlier version have none, and a linear head
    model = settings.model.model_copy(update={"token_head": "linear"})
    return settings.model_copy(update={"model": model})


def find_run(name: str, runs: Path) -> Path:
    """The folder of a run; "" finds the newest unfinished one in `runs`, or else the newest.

    Raises InputError if there is none."""
    if name:
        if not (Path(name) / CONFIG).is_file():
            raise InputError(f"--resume: {name} is not the folder of a run: it has no {CONFIG}")
        path = Path(name)
        return Path(os.path.relpath(path.resolve())) if path.is_symlink() else path
    folders = [path for path in runs.glob("*") if (path / CONFIG).is_file() and not path.is_symlink()]
    if not folders:
        raise InputError(f"--resume: there is no run in {runs}; give its folder: --resume FOLDER")
    return max(folders, key=lambda path: (not is_finished(path), os.stat(path / CONFIG).st_mtime_ns))


def is_finished(run: Path) -> bool:
    """Whether a run is finished: the last line of its metrics is that of the test set."""
    try:
        last = (run / METRICS).read_bytes().splitlines()[-1]
        return "test" in json.loads(last)
    except (OSError, IndexError, ValueError, TypeError):
        return False


def check_output_dir(output_dir: str | None) -> None:
    """Raises InputError if a new run can't use this folder, or can't become runs/latest."""
    path = RUNS / "new" if output_dir is None else Path(output_dir)
    check_latest(path)
    if output_dir is None:
        return
    if path.exists() and not path.is_dir():
        raise InputError(f"output_dir: {path} is a file")
    if path.is_dir() and {*path.iterdir()} - {*leftovers(path), lock_file(path)}:
        raise InputError(f"output_dir: {path} is not empty; a run needs a new or empty folder")


def check_latest(run: Path) -> None:
    """Raises InputError if a run in runs/ can't become runs/latest, because something else has this name."""
    if run.parent.resolve() == RUNS.resolve() and LATEST.exists() and not LATEST.is_symlink():
        raise InputError(f"{LATEST}: is not a link, but a run makes a link of this name: rename it")


def leftovers(path: Path) -> list[Path]:
    """Unfinished files and folders that a killed process left in a run's folder."""
    names = (*(f".{name}.*" for name in (CONFIG, METRICS, "model", REPORT, EVENTS)), f"{CHECKPOINTS}/.step-*")
    return [file for name in names for file in path.glob(name) if not file.is_symlink()]


def create_folder(output_dir: str | None) -> Path:
    """Create the folder of a new run; for None a new one in runs/, named by the time.

    Raises InputError if it can't be used."""
    check_output_dir(output_dir)
    if output_dir is not None:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        return Path(output_dir)
    name = time.strftime("%Y-%m-%d_%H-%M-%S")
    for attempt in range(1, 100):
        path = RUNS / (name if attempt == 1 else f"{name}-{attempt}")
        with suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
    raise InputError(f"{RUNS}: 99 runs are already named {name}")


def check_settings(settings: Settings, saved: Settings, run: Path) -> None:
    """Raises InputError with every difference if `settings` differ from the saved ones of a run."""
    before, now = flatten_settings(saved), flatten_settings(settings)
    differences = _differences(_same_paths(before), _same_paths(now), _FREE)
    _raise_if_any(differences, f"{run / CONFIG} has other settings; a resumed run can't change them")


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
    settings = {**_EARLIER, **before.settings}
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


def _raise_if_any(differences: list[str], why: str) -> None:
    if differences:
        raise InputError(list_problems([f"{why}:", *differences]))
