"""The wrong answers that a model was surest of: wrong labels in the data, or what it has yet to learn."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from multitask.common.shell import printable
from multitask.data.corpus import EncodedCorpus
from multitask.data.labels import UNLABELLED, LabelSpace
from multitask.data.rows import Example
from multitask.data.source_rows import read_source_rows, truncate
from multitask.evaluation.corpus_predictions import CorpusPredictions

MOST = 20
_AROUND = 40  # characters on each side of the place
_NOTHING = "no entity"


class Mistake(NamedTuple):
    """An answer that is wrong. `sentence` has the place in brackets and some characters around it, or its
    beginning where the class is wrong."""

    probability: float
    file: str
    line: int
    task: str  # task_a or task_b
    said: str
    right: str
    sentence: str

    def __str__(self) -> str:
        where = f"{self.probability:.4f}  {self.file}:{self.line}"
        said = printable(f"{where}: said {self.said}, right is {self.right}")
        return f"{said}\n        {printable(self.sentence)}"


class _Place(NamedTuple):
    """Where a mistake is: a row, the words [start, end) of it, both −1 for its class, and the id of what was
    said there, −1 for no entity."""

    probability: float
    row: int
    start: int
    end: int
    said: int


def most_confident_mistakes(
    paths: Sequence[str], corpus: EncodedCorpus, labels: LabelSpace, said: CorpusPredictions, most: int = MOST
) -> list[Mistake]:
    """The surest first. The files are read again, for the words of these rows.

    Entities: one that was said and is not right, with all that is annotated in its place; and one that was
    missed with nothing said in its place, as sure as the model was of O there. Raises InputError where a file
    is another than when the corpus was encoded."""
    places = _surest(corpus, said, most)
    examples = read_source_rows(paths, {place.row for place in places}, corpus)
    return [_mistake(place, examples[place.row], labels) for place in places]


def _surest(corpus: EncodedCorpus, said: CorpusPredictions, most: int) -> list[_Place]:
    found = []
    if said.classes is not None:
        wrong = np.flatnonzero((corpus.row_classes != UNLABELLED) & (said.classes != corpus.row_classes))
        none = np.full(len(wrong), -1)
        found.append((said.class_chances[1, wrong], wrong, none, none, said.classes[wrong]))
    if (m := said.matches) is not None:
        wrong = np.flatnonzero(~m.right)
        spans = m.starts[wrong], m.ends[wrong]
        found.append((said.entity_chances[1, wrong], *_in_rows(corpus, *spans), m.types[wrong]))
        silent = np.flatnonzero(_silent(corpus, said))
        spans = corpus.spans[0, silent], corpus.spans[1, silent]
        found.append((said.silent_chances[silent], *_in_rows(corpus, *spans), np.full(len(silent), -1)))
    if not found:
        return []
    probability, *place = (np.concatenate(parts) for parts in zip(*found))
    order = np.lexsort((place[1], place[0], -probability))[:most]
    return [_Place(float(probability[i]), *(int(column[i]) for column in place)) for i in order]


def _in_rows(corpus: EncodedCorpus, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, ...]:
    """Words of the corpus → rows, and words of the row."""
    rows = np.searchsorted(corpus.word_rows, starts, side="right") - 1
    return rows, starts - corpus.word_rows[rows], ends - corpus.word_rows[rows]


def _silent(corpus: EncodedCorpus, said: CorpusPredictions) -> np.ndarray:
    """Which of the annotated entities (E,) share no word with one that was said."""
    starts, ends, m = corpus.spans[0], corpus.spans[1], said.matches
    following = np.searchsorted(m.ends, starts, side="right")  # the first that ends behind its beginning
    return np.append(m.starts, corpus.word_rows[-1])[following] >= ends


def _mistake(place: _Place, example: Example, labels: LabelSpace) -> Mistake:
    where = place.probability, example.path, example.line
    if place.start < 0:
        said = labels.classes[place.said]
        return Mistake(*where, "task_a", said, example.label, truncate(example.text))
    there = [span for span in example.spans if span.start < place.end and span.end > place.start]
    right = [
        label if (start, end) == (place.start, place.end) else f"{label} {_bracketed(example, start, end)}"
        for start, end, label in there
    ]
    return Mistake(
        *where,
        "task_b",
        labels.types[place.said] if place.said >= 0 else _NOTHING,
        ", ".join(right) or _NOTHING,
        _sentence(example, place.start, place.end),
    )


def _sentence(example: Example, start: int, end: int) -> str:
    """The words [start, end) in brackets, and what is around them."""
    text, first, last = example.text, example.offsets[start][0], example.offsets[end - 1][1]
    before, after = text[max(0, first - _AROUND) : first], text[last:]
    place, dots = _bracketed(example, start, end), "…" if first > _AROUND else ""
    return f"{dots}{before}{place}{truncate(after, _AROUND)}"


def _bracketed(example: Example, start: int, end: int) -> str:
    return f"[{truncate(example.text[example.offsets[start][0] : example.offsets[end - 1][1]])}]"
