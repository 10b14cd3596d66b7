"""Examples → EncodedCorpus: subwords, word alignment and windows, in flat arrays."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from tokenizers import Tokenizer

from multitask.common.errors import InputError
from multitask.data.examples import Example
from multitask.data.labels import UNLABELLED, LabelSpace, Span
from multitask.data.tokenization import WordTokenizer, special_token_ids
from multitask.data.words import TextWords


@dataclass(frozen=True)
class EncodedCorpus:
    """N rows of W words in S subwords, cut into V windows, as flat arrays. `*_rows` are offsets (N + 1,).

    A window is a slice of the subwords; batches add [CLS] and [SEP]. Each word belongs to one window, the one
    with most context for it, and therefore has one tag and counts once. Gold entities are spans as well as
    tags: metrics need the border between adjacent entities of one type, which IO tags do not show."""

    ids: np.ndarray  # (S,) int32 subwords
    word_rows: np.ndarray  # words of row i: [word_rows[i], word_rows[i + 1])
    word_first: np.ndarray  # (W,) position of each word's first subword in ids
    word_tags: np.ndarray  # (W,) int32 tag ids; UNLABELLED in rows without annotation
    row_classes: np.ndarray  # (N,) int32 class ids; UNLABELLED where there is none
    row_tagged: np.ndarray  # (N,) bool: entities are annotated
    row_lines: np.ndarray  # (N,) first line of each row in its file, from 1; 0 without a file
    spans: np.ndarray  # (3, E) starts and ends in words of the corpus, and type ids
    span_exact: np.ndarray  # (E,) bool: False if the entity ends inside a word, and can't be predicted
    window_rows: np.ndarray  # windows of row i: [window_rows[i], window_rows[i + 1])
    window_start: np.ndarray  # (V,) in ids
    window_end: np.ndarray  # (V,)
    window_words: np.ndarray  # (V + 1,) words of window v: [window_words[v], window_words[v + 1])
    special: tuple[int, int, int]  # ids of [CLS], [SEP] and [PAD]
    file_rows: np.ndarray  # rows of file f: [file_rows[f], file_rows[f + 1])

    def __len__(self) -> int:
        return len(self.row_classes)

    @property
    def window_lengths(self) -> np.ndarray:
        """(V,) tokens of each window, with [CLS] and [SEP]."""
        return self.window_end - self.window_start + 2

    @property
    def file_of_row(self) -> np.ndarray:
        """(N,) the number of the file that each row is from."""
        return np.repeat(np.arange(len(self.file_rows) - 1), np.diff(self.file_rows))

    @property
    def row_of_window(self) -> np.ndarray:
        """(V,) the row that each window belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.window_rows))


class LabelNumbers:
    """Numbers for the names of classes and types, in order of appearance."""

    def __init__(self):
        self.classes: dict[str, int] = defaultdict(count().__next__)
        self.types: dict[str, int] = defaultdict(count().__next__)


def window_problem(max_length: int, stride: int) -> str | None:
    """None if windows of `max_length` tokens can overlap by `stride`, or the reason: "it must be below 126".

    [CLS] and [SEP] take two of the tokens, and each window must begin after the one before."""
    room = max_length - 2
    return None if 0 <= stride < room else f"it must be below {room}"


def encode(
    examples: Sequence[Example], tokenizer: Tokenizer, labels: LabelSpace, max_length: int, stride: int
) -> EncodedCorpus:
    """Examples → EncodedCorpus. Windows have at most `max_length` tokens and overlap by `stride` subwords.

    Classes and types that `labels` lacks get ids beyond its own: never predicted, thus scored as wrong.
    Raises InputError if the stride is too large."""
    names, subwords = LabelNumbers(), WordTokenizer(tokenizer)
    arrays = encode_rows(examples, subwords, names, max_length, stride)
    arrays["file_rows"] = np.array([0, len(examples)])
    return apply_labels(arrays, names.classes, names.types, labels, special_token_ids(tokenizer))


def encode_words(
    words: TextWords,
    subwords: WordTokenizer,
    special: tuple[int, int, int],
    max_length: int,
    stride: int,
) -> EncodedCorpus:
    """The words of N texts → EncodedCorpus without annotation. `special`: from `special_token_ids`.

    Raises InputError if the stride is too large."""
    spaces = words.spaces(subwords.first_has_space) if subwords.sees_spaces else None
    arrays, _ = _subwords_and_windows(words.words, spaces, words.rows, subwords, max_length, stride)
    count, nothing = len(words.rows) - 1, np.zeros(0, np.int64)
    return EncodedCorpus(
        **arrays,
        word_rows=words.rows,
        word_tags=np.full(len(words.words), UNLABELLED, np.int32),
        row_classes=np.full(count, UNLABELLED, np.int32),
        row_tagged=np.zeros(count, bool),
        row_lines=np.zeros(count, np.int64),
        spans=nothing.reshape(3, 0),
        span_exact=nothing.astype(bool),
        special=special,
        file_rows=np.array([0, count]),
    )


def encode_rows(
    examples: Iterable[Example],
    subwords: WordTokenizer,
    names: LabelNumbers,
    max_length: int,
    stride: int,
    max_words: float = math.inf,
) -> dict[str, np.ndarray]:
    """Examples → the arrays of an EncodedCorpus that do not depend on a model's labels.

    Named as in EncodedCorpus, but without word_tags and with span_starts, span_ends and span_types instead
    of spans. row_hashes (N,) are equal for rows of equal words. New classes and types get numbers in `names`.
    Stops after the row that reaches `max_words`. Raises InputError if the stride is too large."""
    words, word_rows, annotation, spaces = _columns(examples, names, subwords, max_words)
    arrays, index = _subwords_and_windows(words, spaces, word_rows, subwords, max_length, stride)
    hashes = subwords.hash_rows(index, word_rows)
    return {**arrays, "word_rows": word_rows, **annotation, "row_hashes": hashes}


def _subwords_and_windows(
    words: list[str],
    spaces: Iterable[bool] | None,
    word_rows: np.ndarray,
    subwords: WordTokenizer,
    max_length: int,
    stride: int,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The words of rows → arrays of their EncodedCorpus, and the numbers of the words in `subwords`."""
    if problem := window_problem(max_length, stride):
        raise InputError(f"model.stride is {stride}; with model.max_length {max_length} {problem}")
    room = max_length - 2
    index = subwords.number(words, spaces)
    ids, word_first = subwords.split(index)
    row_subwords = np.append(word_first, len(ids))[word_rows]  # subwords of each row: offsets (N + 1,)
    window_start, window_rows = _windows(row_subwords, room, stride)
    arrays = {
        "ids": ids,
        "word_first": word_first,
        "window_rows": window_rows,
        "window_start": window_start,
        "window_end": np.minimum(window_start + room, np.repeat(row_subwords[1:], np.diff(window_rows))),
        "window_words": _words_of_windows(window_start, window_rows, word_rows, word_first, room),
    }
    return arrays, index


def apply_labels(
    arrays: dict[str, np.ndarray],
    classes: Iterable[str],
    types: Iterable[str],
    labels: LabelSpace,
    special: tuple[int, int, int],
) -> EncodedCorpus:
    """Arrays of `encode_rows`, and the names of its classes and types → EncodedCorpus for these labels."""
    # the last entry is for UNLABELLED, as index −1
    class_ids = [*(labels.class_ids.get(name, len(labels.classes)) for name in classes), UNLABELLED]
    type_ids = [labels.type_ids.get(name, len(labels.types)) for name in types]
    # plain views: slicing a memory map is slow
    arrays = {name: np.asarray(array) for name, array in arrays.items() if name != "row_hashes"}
    starts, ends = arrays.pop("span_starts"), arrays.pop("span_ends")
    span_types = np.array(type_ids, np.int64)[arrays.pop("span_types")]
    tagged, word_rows = arrays["row_tagged"], arrays["word_rows"]
    tags = labels.tag_spans(starts, ends, span_types, int(word_rows[-1]))
    if not tagged.all():
        tags[~np.repeat(tagged, np.diff(word_rows))] = UNLABELLED
    arrays["row_classes"] = np.array(class_ids, np.int32)[np.maximum(arrays["row_classes"], -1)]
    spans = np.stack([starts, ends, span_types])
    return EncodedCorpus(**arrays, word_tags=tags, spans=spans, special=special)


def lengths_to_offsets(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Lengths (n,) → offsets (n + 1,): item i is [offsets[i], offsets[i + 1])."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def _windows(row_subwords: np.ndarray, room: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """The starts of all windows (V,), and the offsets of each row's (N + 1,). The last ends with its row."""
    lengths = np.diff(row_subwords)
    step = room - stride
    counts = 1 + np.maximum(0, -(-(lengths - room) // step))
    window_rows = lengths_to_offsets(counts)
    nth = np.arange(window_rows[-1]) - np.repeat(window_rows[:-1], counts)
    last = np.repeat(np.maximum(lengths - room, 0), counts)
    return np.repeat(row_subwords[:-1], counts) + np.minimum(nth * step, last), window_rows


def _words_of_windows(
    starts: np.ndarray, window_rows: np.ndarray, word_rows: np.ndarray, word_first: np.ndarray, room: int
) -> np.ndarray:
    """Offsets (V + 1,) of the words that belong to each window.

    A word belongs to the window whose middle is nearest to its first subword: there it has most context. The
    windows of a row are equally long, thus the border between the words of two windows lies half-way between
    their middles, and each window has a range of words."""
    ends = np.zeros(len(starts), np.int64)
    ends[:-1] = np.searchsorted(word_first, (starts[1:] + starts[:-1] + room) // 2)
    ends[window_rows[1:] - 1] = word_rows[1:]
    return np.concatenate([[0], ends])


def _columns(
    examples: Iterable[Example], names: LabelNumbers, subwords: WordTokenizer, max_words: float
) -> tuple[list[str], np.ndarray, dict[str, np.ndarray], list[bool] | None]:
    """Examples → their words, the offsets of each row's words, the arrays of the annotation, and whether
    white space stands before each word, if the subwords depend on it.

    Keeps no Example: the garbage collector would visit them again and again."""
    words, spaces, spans = list[str](), list[bool](), list[Span]()
    row_ends, classes, tagged, lines, span_counts = [0], [], [], [], []
    for example in examples:
        words += example.words
        if subwords.sees_spaces:
            spaces += example.spaces(subwords.first_has_space)
        row_ends.append(len(words))
        classes.append(UNLABELLED if example.label is None else names.classes[example.label])
        tagged.append(example.spans is not None)
        lines.append(example.line)
        spans += example.spans or ()
        span_counts.append(len(example.spans or ()))
        if len(words) >= max_words:
            break
    word_rows = np.array(row_ends, np.int64)
    first_words = np.repeat(word_rows[:-1], span_counts)  # of each span's row
    annotation = {
        "row_classes": np.array(classes, np.int32),
        "row_tagged": np.array(tagged, bool),
        "row_lines": np.array(lines, np.int64),
        "span_starts": first_words + np.array([span.start for span in spans], np.int64),
        "span_ends": first_words + np.array([span.end for span in spans], np.int64),
        "span_types": np.array([names.types[span.label] for span in spans], np.int32),
        "span_exact": np.array([span.cut is None for span in spans], bool),
    }
    return words, word_rows, annotation, spaces if subwords.sees_spaces else None
