"""The commands of task_5.py that help people who label texts."""

import logging
from pathlib import Path

from tqdm import tqdm

from multitask.common.errors import InputError, check_not_read
from multitask.common.signals import StopSignals
from multitask.data.texts import files_read
from multitask.inference.predictor import Predictor
from multitask.inference.writers import model_name
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
