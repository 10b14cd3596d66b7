"""The wrong predictions with the highest confidence, which may be wrong gold labels."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from multitask.common.errors import InputError
from multitask.common.shell import printable
from multitask.data.corpus import EncodedCorpus
from multitask.data.examples import Example, example_from_words
from multitask.data.labels import UNLABELLED, LabelSpace, Span
from multitask.data.notices import truncate
from multitask.data.readers import ReadResult, iter_examples, retry_with_counted_tags
from multitask.evaluation.corpus_predictions import CorpusPredictions

MAX_MISTAKES = 20
_CONTEXT = 40  # characters on each side of the marked words
_NO_ENTITY = "no entity"


class Mistake(NamedTuple):
    """A wrong prediction. For an entity, `sentence` shows it in brackets with some context; for a class, it
    is the beginning of the sentence."""

    probability: float
    file: str
    line: int
    task: str  # task_a or task_b
    predicted: str
    gold: str
    sentence: str

    def __str__(self) -> str:
        place = f"{self.probability:.4f}  {self.file}:{self.line}"
        line = f"{place}: predicted {self.predicted}, gold {self.gold}"
        return f"{printable(line)}\n        {printable(self.sentence)}"

    def to_dict(self) -> dict[str, object]:
        """The mistake for JSON, where `predicted` is called "said" and `gold` is called "right"."""
        keys = ("probability", "file", "line", "task", "said", "right", "sentence")
        return dict(zip(keys, self))


def most_confident_mistakes(
    paths: Sequence[str],
    corpus: EncodedCorpus,
    labels: LabelSpace,
    predictions: CorpusPredictions,
    limit: int = MAX_MISTAKES,
    raw: bool = False,
) -> list[Mistake]:
    """At most `limit` wrong predictions, highest confidence first. The files are read again for their text,
    with `raw` as `iter_examples` reads them.

    A wrong entity is reported with all gold entities that it overlaps. A gold entity that no predicted one
    overlaps is reported with the mean probability of O over its words. Raises InputError if a file has
    changed since the corpus was encoded."""
    rows, *columns = _locate(corpus, predictions, limit)
    examples = read_source_rows(paths, set(rows), corpus, raw)
    return [_mistake(examples[row], labels, *facts) for row, *facts in zip(rows, *columns)]


def _locate(corpus: EncodedCorpus, predictions: CorpusPredictions, limit: int) -> list[list]:
    """Columns: rows, probabilities, first words in the row, words after the last, predicted ids. Both words
    are −1 for the class of a row; the id is a class or type id, −1 for no entity."""
    parts: list[tuple[np.ndarray, ...]] = []
    if predictions.classes is not None and predictions.class_probabilities is not None:
        annotated = corpus.row_classes != UNLABELLED
        wrong = np.flatnonzero(annotated & (predictions.classes != corpus.row_classes))
        no_words = np.full(len(wrong), -1)
        probabilities = predictions.class_probabilities[1, wrong]
        parts.append((wrong, probabilities, no_words, no_words, predictions.classes[wrong]))
    if (m := predictions.matches) is not None:
        assert predictions.entity_scores is not None and predictions.outside_probabilities is not None
        wrong = np.flatnonzero(~m.correct)
        rows, *words = _words_in_rows(corpus, m.starts[wrong], m.ends[wrong])
        parts.append((rows, predictions.entity_scores[1, wrong], *words, m.types[wrong]))
        starts, ends = corpus.spans[0], corpus.spans[1]
        # the first predicted entity that ends after the gold one starts
        following = np.searchsorted(m.ends, starts, side="right")
        missed = np.flatnonzero(np.append(m.starts, corpus.word_rows[-1])[following] >= ends)
        rows, *words = _words_in_rows(corpus, starts[missed], ends[missed])
        parts.append((rows, predictions.outside_probabilities[missed], *words, np.full(len(missed), -1)))
    columns = [np.concatenate(column) for column in zip(*parts)] or [np.zeros(0)] * 5
    order = np.lexsort((columns[2], columns[0], -columns[1]))[:limit]
    return [column[order].tolist() for column in columns]


def _words_in_rows(corpus: EncodedCorpus, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, ...]:
    """Word ranges in the corpus → rows, and word ranges in those rows."""
    rows = np.searchsorted(corpus.word_rows, starts, side="right") - 1
    return rows, starts - corpus.word_rows[rows], ends - corpus.word_rows[rows]


def _mistake(
    example: Example, labels: LabelSpace, probability: float, start: int, end: int, predicted: int
) -> Mistake:
    source, text, offsets = (probability, example.path, example.line), example.text, example.offsets
    assert text is not None and offsets is not None  # read_source_rows adds them
    if start < 0:
        assert example.label is not None  # the row has a gold class
        return Mistake(*source, "task_a", labels.classes[predicted], example.label, truncate(text))

    def bracketed(span: Span) -> str:
        first, last = example.characters(span)
        return f"[{truncate(text[first:last])}]"

    gold = [
        span.label
        if (span.start, span.end) == (start, end) and not span.cut
        else f"{span.label} {bracketed(span)}"
        for span in example.spans or ()
        if span.start < end and span.end > start
    ]
    first, last = offsets[start][0], offsets[end - 1][1]
    before = f"{'…' if first > _CONTEXT else ''}{text[max(0, first - _CONTEXT) : first]}"
    sentence = f"{before}{bracketed(Span(start, end, ''))}{truncate(text[last:], _CONTEXT)}"
    type_name = labels.types[predicted] if predicted >= 0 else _NO_ENTITY
    return Mistake(*source, "task_b", type_name, ", ".join(gold) or _NO_ENTITY, sentence)


def read_source_rows(
    paths: Sequence[str], rows: Collection[int], corpus: EncodedCorpus, raw: bool
) -> dict[int, Example]:
    """Read the files of a corpus again → the Examples of some of its row numbers, each with a text.

    Raises InputError if a file has changed since the corpus was encoded."""

    def read(count_tags: bool) -> dict[int, Example]:
        # "skip": the corpus has no bad rows either
        examples = iter_examples(paths, ReadResult(), "skip", count_tags=count_tags, raw=raw)
        return {row: example for row, example in enumerate(examples) if row in rows}

    examples = retry_with_counted_tags(read) if rows else {}
    for row in rows:
        if row not in examples or examples[row].line != corpus.row_lines[row]:
            raise InputError(f"{', '.join(paths)}: changed while it was read")
        if examples[row].text is None:
            joined = example_from_words(examples[row].words)
            examples[row] = replace(examples[row], text=joined.text, offsets=joined.offsets)
    return examples
