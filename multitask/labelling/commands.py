"""The commands of task_5.py that find texts to label and labels to correct."""

import logging
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from multitask.common.errors import InputError, check_not_read
from multitask.common.signals import StopSignals
from multitask.data.texts import files_read
from multitask.inference.predictor import Predictor
from multitask.inference.writers import model_name
from multitask.labelling.audit import audit, audit_settings
from multitask.labelling.audit_report import Report, json_row, task
from multitask.labelling.folds import Build, Train
from multitask.labelling.formats import (
    DOCCANO,
    LABEL_STUDIO,
    check_new,
    choose_format,
    doccano_row,
    label_studio_task,
    write_rows,
)
from multitask.labelling.suggestions import MAX_COUNT, suggest

logger = logging.getLogger(__name__)


def suggest_to_file(
    path: str,
    labelled: str | None,
    model: str,
    device: str | None,
    count: int,
    output: str | None,
    wanted_format: str | None,
    by: str | None,
    diverse: bool,
) -> None:
    """Write the texts of a file that are worth labelling next, each with the annotation that the model of a
    folder gives it, to `output`, or to standard output (None). `by`, `diverse`: as for `suggest`.

    Raises InputError for a count out of range, files that can't be read or written, an output that exists, a
    missing model, and as `suggest` does."""
    if not 1 <= count <= MAX_COUNT:
        raise InputError(f"--count is {count:,}; it must be from 1 to {MAX_COUNT:,}: train again in between")
    if "-" in (path, labelled):
        raise InputError("suggest reads its files twice: give a file, not standard input")
    chosen = choose_format(wanted_format, output)
    read = [file for name in (path, labelled) for file in files_read(name)]
    check_not_read([Path(output) if output else 1], [*read, *Path(model).glob("*")])
    check_new(output)
    with StopSignals(), tqdm(unit=" texts", disable=None) as progress:
        predictor = Predictor.from_pretrained(model, device)
        suggestions = suggest(predictor, path, count, labelled, by, diverse, progress.update)
        rows = []
        for prediction, uncertainty in suggestions:
            unsure = {"uncertainty": round(uncertainty, 6)}
            if chosen == LABEL_STUDIO:
                named = [(model_name(model), prediction)]
                rows.append(label_studio_task(prediction.text, named, **unsure))
            elif chosen == DOCCANO:
                rows.append(doccano_row(prediction, predictor.labels, **unsure))
            else:
                rows.append(prediction.to_dict() | unsure)
        write_rows(rows, chosen, output)
    if output:
        logger.info(f"{output}: {len(rows):,} texts, the most useful one first")


def audit_to_file(
    paths: Sequence[str],
    config: str | None,
    overrides: Sequence[str],
    folds: int,
    output: str | None,
    wanted_format: str | None,
    build: Build,
    train: Train,
) -> None:
    """Print what looks wrong in annotated files, and write the rows to correct to `output`, if it is given.

    `build` and `train` make and train a model. Raises InputError as `audit` does, and for an output that
    can't be written or exists."""
    chosen = choose_format(wanted_format, output)
    check_not_read([Path(output)] if output else [], [file for path in paths for file in files_read(path)])
    check_new(output)
    settings = audit_settings(paths, config, overrides)
    with StopSignals(), tqdm(total=folds, desc="cross-validation", unit=" folds", disable=None) as progress:
        report = Report(audit(settings, folds, build, train, progress.update))
        rows = list(map(task if chosen == LABEL_STUDIO else json_row, report.findings()))
        if output:
            write_rows(rows, chosen, output)
    print(report.table())
    if output:
        logger.info(f"{output}: {len(rows):,} rows, the most doubtful annotation first")
