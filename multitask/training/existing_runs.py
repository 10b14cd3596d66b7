"""The folders of runs: finds or creates one, and reads and writes its settings."""

import json
import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from multitask.common import distributed
from multitask.common.atomic_files import lock_file
from multitask.common.errors import InputError
from multitask.config.help_text import render_config
from multitask.config.loading import load_settings
from multitask.config.schema import Settings
from multitask.training.trackers import EVENTS

logger = logging.getLogger(__name__)

RUNS = Path("runs")
LATEST = RUNS / "latest"  # a link to the newest run with a model
CONFIG, METRICS, CHECKPOINTS = "config.yml", "metrics.jsonl", "checkpoints"
MODEL, REPORT = "model", "report.html"
_START = "# relative paths begin in this folder, seen from here: "  # the first line of a run's config.yml


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
