"""The runs of a search: each trains the same data with other settings, and keeps no model."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace

from model import MultiTaskTransformer
from multitask.common import distributed
from multitask.common.errors import InputError, require_packages
from multitask.common.signals import StoppedBySignal, StopSignals
from multitask.config.schema import Settings
from multitask.search.space import search_space
from multitask.search.study import AfterEpoch, Search, search_folder
from multitask.training.preparation import Prepared, prepare
from multitask.training.trainer import Trainer

Build = Callable[[Prepared, Settings], MultiTaskTransformer]
Train = Callable[[Trainer, None, StopSignals, AfterEpoch], None]


def search_settings(settings: Settings, fixed: Sequence[str], count: int, build: Build, train: Train) -> None:
    """Search for settings that are better on dev, in `count` runs. The folder of the search gets a config.yml
    with the best ones.

    Args:
        fixed: dotted keys, or sections, that stay as they are.
        build: makes the model of a run.
        train: trains it; without a run folder it keeps nothing.

    Raises InputError without dev, in one of several processes, and as `Search` does."""
    require_packages(["optuna"], "--search", "requirements-search.txt")
    device, folder = distributed.init_processes(settings.device), search_folder(settings.output_dir)
    if distributed.world_size() > 1 or not settings.data.dev:
        raise InputError("--search runs in one process, and needs data.dev to compare runs")
    settings = settings.model_copy(update={"output_dir": None})
    prepared = prepare(settings)
    token_head = prepared.heads.token_head if "task_b" in prepared.heads.new else None
    found = Search(folder, settings, search_space(settings, token_head, fixed), token_head)
    features: dict = {}  # of the frozen layers: of the last one, or of all, as the tag head reads them

    def train_once(settings: Settings, after_epoch: AfterEpoch) -> float:
        heads = prepared.heads
        if token_head and settings.model.token_head != "auto":
            heads = replace(heads, token_head=settings.model.token_head)
        own = replace(prepared, heads=heads)
        trainer = Trainer(build(own, settings).to(device), own, settings)
        trainer.features = features.setdefault(trainer.model.read_layers, trainer.features)
        train(trainer, None, stop, after_epoch)
        if trainer.progress.best is None:
            raise InputError("data.dev has no annotation of a trained task")
        return trainer.progress.best

    print(f"Using device: {device}\nSearch folder: {folder}")
    try:
        with StopSignals() as stop:
            found.run(count, train_once)
    except StoppedBySignal as error:
        same = shlex.quote(f"output_dir={folder}")
        raise error.with_hint(f"to continue: the same command with {same}") from None
    print(found.result())
