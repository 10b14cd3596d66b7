"""Which texts of a file to label next: those of which a model is least sure."""

import logging
from collections.abc import Callable, Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np

from multitask.common.errors import InputError, list_problems
from multitask.data.examples import Example
from multitask.data.texts import UnreadableRow, is_blank, read_rows
from multitask.inference.predictions import Prediction
from multitask.inference.predictor import Predictor
from multitask.labelling.diversity import farthest_first, nearest_distances, unit_vectors
from multitask.labelling.uncertainty import Uncertainty, choose_order, combine, encoded, measure, row_keys

logger = logging.getLogger(__name__)

CANDIDATES, MOST_CANDIDATES = 10, 20_000  # for diversity: per suggestion, and in all
MAX_COUNT = 10_000

Progress = Callable[[int], object]  # called with the number of texts done since the last call


class Suggestion(NamedTuple):
    """A text to label, with what a model predicts for it, and how unsure it is: see `combine`."""

    prediction: Prediction
    uncertainty: float


class _Pool(NamedTuple):
    """The N distinct texts of a file that are not labelled yet."""

    numbers: np.ndarray  # (N,) of the texts among the readable, not blank rows of the file, from 0
    keys: np.ndarray  # (N,) as from `row_keys`, uint64
    uncertainty: np.ndarray  # (N,) as from `combine`


def suggest(
    predictor: Predictor,
    path: str,
    count: int,
    labelled: str | None = None,
    by: str | None = None,
    diverse: bool = False,
    progress: Progress | None = None,
) -> list[Suggestion]:
    """The texts of a file that would teach the model most, the most useful one first.

    The file is read twice: memory holds three numbers per text, and the texts and embeddings of the
    candidates. Texts that the model can't tell apart are suggested once, and not at all if one of them stands
    in `labelled`. Blank texts are left out; so are rows that can't be read, which are logged.

    Args:
        path: a file as `read_rows` reads it, but not standard input.
        count: of suggestions, from 1 to MAX_COUNT; a smaller file gives all of its texts.
        labelled: likewise a file.
        by: what the model is to be unsure of, as for `choose_order`.
        diverse: choose texts that are far from each other and from those of `labelled`, among CANDIDATES
            times as many of which the model is unsure.
        progress: called with the number of texts of `path` that have been measured.

    Raises InputError if a file can't be read, has no text to label, or changes meanwhile, and as
    `choose_order` does."""
    problems: list[str] = []
    order_by = choose_order(by, predictor.labels)
    rows = encoded(predictor, _texts(labelled, problems))
    known = set(chain.from_iterable(row_keys(corpus) for _, corpus in rows))
    _report(problems)
    pool = _read_pool(predictor, path, known, order_by, progress)
    wanted = min(CANDIDATES * count, MOST_CANDIDATES) if diverse else count
    candidates = np.argsort(-pool.uncertainty, kind="stable")[:wanted]
    # of the candidates among their rows, as the file has them
    order = np.argsort(np.argsort(candidates)).tolist()
    candidates = np.sort(candidates)
    examples = _read_again(predictor, path, pool, candidates)
    predictions = predictor.predict_examples(examples, embeddings=diverse)
    unsure = pool.uncertainty[candidates]
    if diverse:
        order = _far_from_each_other(predictor, predictions, unsure, labelled, min(count, len(examples)))
    return [Suggestion(predictions[i]._replace(embedding=None), float(unsure[i])) for i in order]


def _far_from_each_other(
    predictor: Predictor, predictions: list[Prediction], unsure: np.ndarray, labelled: str | None, count: int
) -> list[int]:
    vectors = _vectors(predictions)
    distances = nearest_distances(vectors, vectors[:0])
    for part, _ in encoded(predictor, _texts(labelled)):
        centres = _vectors(predictor.predict_examples(part, embeddings=True))
        distances = np.minimum(distances, nearest_distances(vectors, centres))
    return farthest_first(vectors, unsure, distances, count)


def _texts(path: str | None, problems: list[str] | None = None) -> Iterator[Example]:
    """The rows of a file that have words; none without a file. Adds to `problems` why rows are unreadable."""
    for row in read_rows(path) if path else ():
        if isinstance(row, UnreadableRow):
            if problems is not None:
                problems.append(row.reason)
        elif not is_blank(row):
            yield row


def _report(problems: list[str]) -> None:
    if problems:
        logger.warning(f"{len(problems):,} rows can't be read:\n{list_problems(problems)}")


def _read_pool(predictor: Predictor, path: str, known: set[int], by: str, progress: Progress | None) -> _Pool:
    problems: list[str] = []
    numbers, keys, measured = [], [], []
    seen, texts, labelled = set(known), 0, 0
    for part, part_keys, uncertainty in measure(predictor, _texts(path, problems)):
        new = []
        for number, key in enumerate(part_keys):
            labelled += key in known
            if key not in seen:
                seen.add(key)
                new.append(number)
        numbers.append(texts + np.array(new, np.int64))
        keys.append(np.array(part_keys, np.uint64)[new])
        measured.append(uncertainty.take(new))
        texts += len(part)
        if progress:
            progress(len(part))
    _report(problems)
    count = sum(map(len, keys))
    repeated = texts - labelled - count
    left_out = f"{repeated:,} repeat an earlier one, and {labelled:,} are labelled already"
    if not texts:
        raise InputError(f"{path}: there is no text in it")
    if not count:
        raise InputError(f"{path}: no text to label; of its {texts:,} texts {left_out}")
    logger.info(f"{path}: {texts:,} texts, of which {left_out}")
    together = Uncertainty(*(None if parts[0] is None else np.concatenate(parts) for parts in zip(*measured)))
    return _Pool(np.concatenate(numbers), np.concatenate(keys), combine(together, by))


def _read_again(predictor: Predictor, path: str, pool: _Pool, candidates: np.ndarray) -> list[Example]:
    """The rows of candidates, in the order of the file. Raises InputError if the file has changed."""
    numbers = set(pool.numbers[candidates].tolist())
    rows = [row for number, row in enumerate(_texts(path)) if number in numbers]
    keys = chain.from_iterable(row_keys(corpus) for _, corpus in encoded(predictor, rows))
    if list(keys) != pool.keys[candidates].tolist():
        raise InputError(f"{path}: changed while it was read")
    return rows


def _vectors(predictions: list[Prediction]) -> np.ndarray:
    return unit_vectors(np.stack([p.embedding for p in predictions if p.embedding is not None]))
