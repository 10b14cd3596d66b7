"""Examples → EncodedCorpus: subwords, word alignment and windows, in flat arrays."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from tokenizers import Tokenizer

from multitask.common.errors import InputError
from multitask.data.labels import UNLABELLED, LabelSpace, Span
from multitask.data.rows import Example
from multitask.data.tokenization import WordTokenizer


@dataclass(frozen=True)
class EncodedCorpus:
    """N rows of W words in S subwords, read in V windows. Every array is flat; `*_rows` are offsets (N + 1,).

    A window is a slice of the subwords; [CLS] and [SEP] are put around it when a batch is made. Every word
    belongs to exactly one window, the one that gives it most context, so it has one tag and counts once.
    Gold entities are kept as spans too: IO tags can't part two neighbours of one type, scores must."""

    ids: np.ndarray  # (S,) int32 subwords
    word_rows: np.ndarray  # words of row i: [word_rows[i], word_rows[i + 1])
    word_first: np.ndarray  # (W,) position of each word's first subword in ids
    word_tags: np.ndarray  # (W,) int32 tag ids; UNLABELLED in rows without annotation
    row_classes: np.ndarray  # (N,) int32 class ids; UNLABELLED where there is none
    row_tagged: np.ndarray  # (N,) bool, whether entities are annotated
    row_lines: np.ndarray  # (N,) where each row begins in its file, from 1; 0 where it is from none
    spans: np.ndarray  # (3, E) starts and ends in words, counted over the whole corpus, and type ids
    window_rows: np.ndarray  # windows of row i: [window_rows[i], window_rows[i + 1])
    window_start: np.ndarray  # (V,) in ids
    window_end: np.ndarray  # (V,)
    window_words: np.ndarray  # (V + 1,) words of window v: [window_words[v], window_words[v + 1])
    special: tuple[int, int, int]  # ids of [CLS], [SEP] and the padding
    file_rows: np.ndarray  # rows of file f: [file_rows[f], file_rows[f + 1])

    def __len__(self) -> int:
        return len(self.row_classes)

    @property
    def window_lengths(self) -> np.ndarray:
        """(V,) tokens of each window, [CLS] and [SEP] counted."""
        return self.window_end - self.window_start + 2

    @property
    def file_of_row(self) -> np.ndarray:
        """(N,) which of the split's files each row is from, as a number."""
        return np.repeat(np.arange(len(self.file_rows) - 1), np.diff(self.file_rows))

    @property
    def row_of_window(self) -> np.ndarray:
        """(V,) the row that each window belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.window_rows))


class LabelNumbers:
    """Names of classes and types, numbered in the order in which they appear."""

    def __init__(self):
        self.classes: dict[str, int] = defaultdict(count().__next__)
        self.types: dict[str, int] = defaultdict(count().__next__)


def window_problem(max_length: int, stride: int) -> str | None:
    """What is wrong with a stride, as "it is below 126"; None if windows can overlap by it.

    [CLS] and [SEP] take two of a window's `max_length` tokens, and each window must begin after the last."""
    room = max_length - 2
    return None if 0 <= stride < room else f"it is below {room}"


def encode(
    examples: Sequence[Example], tokenizer: Tokenizer, labels: LabelSpace, max_length: int, stride: int
) -> EncodedCorpus:
    """Examples → EncodedCorpus. Windows have at most `max_length` tokens and overlap by `stride` subwords.

    Classes and types that `labels` lacks get ids beyond the heads' sizes: never predicted, so scored as
    wrong. Raises InputError if `stride` leaves no room to go on."""
    names, subwords = LabelNumbers(), WordTokenizer(tokenizer)
    arrays = encode_rows(examples, subwords, names, max_length, stride)
    arrays["file_rows"] = np.array([0, len(examples)])
    return apply_labels(arrays, names.classes, names.types, labels, special_token_ids(tokenizer))


def encode_rows(
    examples: Iterable[Example],
    subwords: WordTokenizer,
    names: LabelNumbers,
    max_length: int,
    stride: int,
    most_words: float = math.inf,
) -> dict[str, np.ndarray]:
    """Examples → the arrays that need no label space: ids of classes and types are those of `names`.

    Named as in EncodedCorpus, but spans are span_starts, span_ends and span_types, and word_tags come later;
    row_hashes (N,) are equal for rows of equal words. Of an iterator, only rows of about `most_words` words
    are taken. Raises InputError as `encode` does."""
    if problem := window_problem(max_length, stride):
        raise InputError(f"model.stride is {stride}; with model.max_length {max_length} {problem}")
    room = max_length - 2
    words, word_rows, annotation = _columns(examples, names, most_words)
    index = subwords.number(words)
    ids, word_first = subwords.split(index)
    row_subwords = np.append(word_first, len(ids))[word_rows]
    windows, window_rows = _windows(row_subwords, room, stride)
    return {
        "ids": ids,
        "word_rows": word_rows,
        "word_first": word_first,
        **annotation,
        "window_rows": window_rows,
        "window_start": windows,
        "window_end": np.minimum(windows + room, np.repeat(row_subwords[1:], np.diff(window_rows))),
        "window_words": _words_of_windows(windows, window_rows, word_rows, word_first, room),
        "row_hashes": subwords.hash_rows(index, word_rows),
    }


def apply_labels(
    arrays: dict[str, np.ndarray],
    classes: Iterable[str],
    types: Iterable[str],
    labels: LabelSpace,
    special: tuple[int, int, int],
) -> EncodedCorpus:
    """Arrays of `encode_rows`, whose ids stand for these names → the corpus for a model of `labels`."""
    # the last entry is where UNLABELLED points to when it is set to −1
    class_ids = np.array(
        [*(labels.class_ids.get(n, len(labels.classes)) for n in classes), UNLABELLED], np.int32
    )
    type_ids = np.array([labels.type_ids.get(name, len(labels.types)) for name in types], np.int64)
    # a plain view of a mapped array: its class costs time at every slice
    kept = {name: np.asarray(array) for name, array in arrays.items()}
    span_types = type_ids[kept.pop("span_types")]
    starts, ends = kept.pop("span_starts"), kept.pop("span_ends")
    spans = np.stack([starts, ends, span_types])
    tagged, word_rows = kept["row_tagged"], kept["word_rows"]
    tags = labels.tag_spans(starts, ends, span_types, int(word_rows[-1]))
    if not tagged.all():
        tags[~np.repeat(tagged, np.diff(word_rows))] = UNLABELLED
    kept["row_classes"] = class_ids[np.maximum(kept["row_classes"], -1)]
    del kept["row_hashes"]
    return EncodedCorpus(**kept, word_tags=tags, spans=spans, special=special)


def lengths_to_offsets(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Lengths (n,) → offsets (n + 1,): item i is [offsets[i], offsets[i + 1])."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def special_token_ids(tokenizer: Tokenizer) -> tuple[int, int, int]:
    """Ids of [CLS], [SEP] and the padding, whatever they are called."""
    ids = tokenizer.encode("").ids
    if len(ids) != 2:
        raise InputError(f"the tokenizer puts {len(ids)} special tokens around a text; BERT's puts 2")
    return ids[0], ids[1], tokenizer.token_to_id("[PAD]") or 0


def _windows(row_subwords: np.ndarray, room: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each window starts (V,), and each row's windows (N + 1,). A row's last window ends with it."""
    lengths = np.diff(row_subwords)
    step = room - stride
    counts = 1 + np.maximum(0, -(-(lengths - room) // step))
    window_rows = lengths_to_offsets(counts)
    nth = np.arange(window_rows[-1]) - np.repeat(window_rows[:-1], counts)
    last = np.repeat(np.maximum(lengths - room, 0), counts)
    return np.repeat(row_subwords[:-1], counts) + np.minimum(nth * step, last), window_rows


def _words_of_windows(
    windows: np.ndarray, window_rows: np.ndarray, word_rows: np.ndarray, word_first: np.ndarray, room: int
) -> np.ndarray:
    """Offsets (V + 1,) of the words that each window tags.

    A word belongs to the window in which the nearer end of the text around its first subword is farthest
    away. Windows of a row are equally long, so that is the one whose middle is nearest: the border between
    two windows lies half-way between their middles. Words and windows are in order, so each window has a
    range of words."""
    ends = np.zeros(len(windows), np.int64)
    ends[:-1] = np.searchsorted(word_first, (windows[1:] + windows[:-1] + room) // 2)
    ends[window_rows[1:] - 1] = word_rows[1:]
    return np.concatenate([[0], ends])


def _columns(
    examples: Iterable[Example], names: LabelNumbers, most_words: float
) -> tuple[list[str], np.ndarray, dict[str, np.ndarray]]:
    """Examples → their words, the words' offsets, and the arrays of what is annotated.

    No Example is held: as long as they live, Python looks through them again and again for cycles."""
    words: list[str] = []
    spans: list[Span] = []
    row_ends, classes, tagged, lines, counts = [0], [], [], [], []
    for example in examples:
        words += example.words
        row_ends.append(len(words))
        classes.append(UNLABELLED if example.label is None else names.classes[example.label])
        tagged.append(example.spans is not None)
        lines.append(example.line)
        found = example.spans or ()
        spans += found
        counts.append(len(found))
        if len(words) >= most_words:
            break
    word_rows = np.array(row_ends, np.int64)
    starts, ends = [span.start for span in spans], [span.end for span in spans]
    labels = [span.label for span in spans]
    first = np.repeat(word_rows[:-1], counts)
    annotation = {
        "row_classes": np.array(classes, np.int32),
        "row_tagged": np.array(tagged, bool),
        "row_lines": np.array(lines, np.int64),
        "span_starts": first + np.array(starts, np.int64),
        "span_ends": first + np.array(ends, np.int64),
        "span_types": np.fromiter(map(names.types.__getitem__, labels), np.int32, len(labels)),
    }
    return words, word_rows, annotation
