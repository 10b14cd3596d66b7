"""What a run leaves: its settings, a line of metrics an epoch, and the best model."""

import json
import os
import time
from pathlib import Path

from multitask.backbone import save_model
from multitask.config_text import render
from multitask.errors import InputError
from multitask.output import atomic_file, atomic_folder
from multitask.settings import TASKS, Settings

RUNS = Path("runs")
LATEST_MODEL = str(RUNS / "latest" / "model")


class RunFolder:
    """config.yml, metrics.jsonl and model/ of one run."""

    def __init__(self, settings: Settings, tokenizer_source: Path):
        """Make the folder. Raises InputError if it is there and not empty: no run is overwritten."""
        self.path = _new_folder(settings.output_dir)
        self.tokenizer_source = tokenizer_source
        with atomic_file(self.path / "config.yml") as file:
            file.write(render(settings).encode())

    @property
    def model(self) -> Path:
        return self.path / "model"

    def log(self, metrics: dict) -> None:
        """Append a line to metrics.jsonl."""
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")

    def save(self, model) -> None:
        """Replace model/ by this model and its tokenizer, and let runs/latest point here."""
        with atomic_folder(self.model) as folder:
            save_model(model, self.tokenizer_source, folder)
        if self.path.parent.resolve() == RUNS.resolve():
            link = RUNS / f".latest.{os.getpid()}"
            link.symlink_to(self.path.name)
            os.replace(link, RUNS / "latest")


def epoch_line(metrics: dict, epochs: int) -> str:
    """An epoch's metrics, as they are printed."""
    losses = {name: metrics[f"loss_{name}"] for name in TASKS}
    tasks = [f"task {name[-1].upper()} {loss:.4f}" for name, loss in losses.items() if loss is not None]
    dev = [
        f"{name.replace('_', ' ')} {value:.4f}"
        for name, value in (metrics["dev"] or {}).items()
        if value is not None
    ]
    line = f"Epoch {metrics['epoch']}/{epochs}, Loss: {metrics['loss']:.4f} ({', '.join(tasks)})"
    return f"{line}; {metrics['seconds']:.1f} s" + (f"; dev: {', '.join(dev)}" if dev else "")


def check_output_dir(output_dir: str | None) -> None:
    """Raises InputError where a run can't go, before any work is done for it."""
    if output_dir is None:
        return
    path = Path(output_dir)
    if path.exists() and not path.is_dir():
        raise InputError(f"output_dir: {path} is a file")
    if path.is_dir() and any(path.iterdir()):
        raise InputError(f"output_dir: {path} is not empty; a run gets a folder of its own")


def _new_folder(output_dir: str | None) -> Path:
    check_output_dir(output_dir)
    if output_dir is not None:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        return Path(output_dir)
    name = time.strftime("%Y-%m-%d_%H-%M-%S")
    for attempt in range(1, 100):
        path = RUNS / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise InputError(f"{RUNS}: no name is free for a run of {name}")
