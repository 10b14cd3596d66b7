"""What a teacher says about the texts and words of train: its probabilities, by the student's labels."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from multitask.common.errors import InputError
from multitask.config.schema import Settings
from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import LabelSpace
from multitask.data.splits import read_split
from multitask.data.tokenization import WordTokenizer
from multitask.distillation.row_targets import RowTargets
from multitask.distillation.teacher import Teacher, load_teacher
from multitask.inference.decoding import softmax
from multitask.inference.predictor import Predictor
from multitask.inference.runner import run_model

_ROWS = 4096  # of data.train whose probabilities are taken from it at once
Parts = Iterator[dict[str, np.ndarray]]


def teacher_probabilities(
    teacher: Teacher,
    settings: Settings,
    corpus: EncodedCorpus,
    tasks: Sequence[str],
    rows: tuple[int, int],
    device: torch.device,
    progress: Callable[[int], object],
) -> Parts:
    """A teacher's probabilities for rows [first, last) of train, some rows after the others, in order: of
    texts (n, its classes), and of words (m, its tags).

    A model's are those that it predicts, its temperatures included. Raises InputError if the files of train
    have changed.

    Args:
        corpus: train as the student reads it; a model reads the same words in its own subwords and windows.
        tasks: those to give.
        progress: called with the number of rows done since the last call."""
    if teacher.rows is not None:
        yield from _of_rows(teacher.rows, corpus, tasks, rows, progress)
        return
    assert teacher.folder is not None
    predictor = load_teacher(teacher.folder, device, settings.training.precision)
    read = _corpus_of(predictor, settings)
    if not np.array_equal(read.word_rows, corpus.word_rows):
        raise InputError(f"{', '.join(settings.data.train)}: changed while it was read")
    config, heads = predictor.config, ("sentence_logits", "word_logits")
    for out in run_model(predictor.runner, read, progress, rows):
        yield {
            task: softmax(getattr(out, logits) / np.float32(getattr(config, f"temperature_{task}")))
            for task, logits in zip(("task_a", "task_b"), heads)
            if task in tasks
        }


def by_own_labels(teacher: Teacher, labels: LabelSpace, task: str, probabilities: np.ndarray) -> np.ndarray:
    """A teacher's probabilities (n, its classes or tags) → those of the student's labels (n, labels), matched
    by name, in float64. A BIO teacher's B- and I- of a type are added for an IO student."""
    own = labels.classes if task == "task_a" else labels.tags
    places = {name: place for place, name in enumerate(own)}
    merges = task == "task_b" and (teacher.labels.scheme, labels.scheme) == ("BIO", "IO")
    result = np.zeros((len(probabilities), len(places)))
    for column, name in enumerate(_names(teacher, task)):
        result[:, places[name[2:] if merges and name != "O" else name]] += probabilities[:, column]
    return result


def soften(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (n, labels) → those at a temperature: the softmax of their logits divided by it. Rows of
    zeros stay zeros. Hinton, Vinyals & Dean 2015, eq. 1."""
    powers = np.power(probabilities, 1 / temperature)
    sums = powers.sum(1, keepdims=True)
    return (powers / np.where(sums > 0, sums, 1)).astype(np.float32)


def _names(teacher: Teacher, task: str) -> list[str]:
    """The names of the columns of a teacher's probabilities."""
    if given := teacher.rows:
        return list((given.classes if task == "task_a" else given.tags).numbers)
    return list(teacher.labels.classes) if task == "task_a" else teacher.labels.tags


def _of_rows(
    given: RowTargets,
    corpus: EncodedCorpus,
    tasks: Sequence[str],
    rows: tuple[int, int],
    progress: Callable[[int], object],
) -> Parts:
    for first in range(*rows, _ROWS):
        last = min(first + _ROWS, rows[1])
        of_words = int(corpus.word_rows[first]), int(corpus.word_rows[last])
        part = {}
        if "task_a" in tasks:
            part["task_a"] = given.classes.dense(first, last)
        if "task_b" in tasks:
            part["task_b"] = given.tags.dense(*of_words)
        yield part
        progress(last - first)


def _corpus_of(predictor: Predictor, settings: Settings) -> EncodedCorpus:
    """Train as a predictor reads it."""
    data, window = settings.data, (predictor.config.max_length, predictor.config.stride)
    subwords = WordTokenizer(predictor.tokenizer)
    split = read_split(data.train, subwords, *window, data.on_bad_row, cache_dir=settings.cache_dir)
    return split.corpus(predictor.labels)
