"""Examples → EncodedCorpus: subwords, word alignment and windows, in flat arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from multitask.errors import InputError
from multitask.labels import UNLABELLED, LabelSpace, ragged
from multitask.rows import Example


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
    spans: np.ndarray  # (3, E) starts and ends in words, counted over the whole corpus, and type ids
    window_rows: np.ndarray  # windows of row i: [window_rows[i], window_rows[i + 1])
    window_start: np.ndarray  # (V,) in ids
    window_end: np.ndarray  # (V,)
    window_words: np.ndarray  # (V + 1,) words of window v: [window_words[v], window_words[v + 1])
    special: tuple[int, int, int]  # ids of [CLS], [SEP] and the padding

    def __len__(self) -> int:
        return len(self.row_classes)

    @property
    def window_lengths(self) -> np.ndarray:
        """(V,) tokens of each window, [CLS] and [SEP] counted."""
        return self.window_end - self.window_start + 2

    @property
    def row_of_window(self) -> np.ndarray:
        """(V,) the row that each window belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.window_rows))


def encode(
    examples: Sequence[Example], tokenizer: Tokenizer, labels: LabelSpace, max_length: int, stride: int
) -> EncodedCorpus:
    """Examples → EncodedCorpus. Windows have at most `max_length` tokens and overlap by `stride` subwords.

    Classes and types that `labels` lacks get ids beyond the heads' sizes: never predicted, so scored as
    wrong. Raises InputError if `stride` leaves no room to go on."""
    room = max_length - 2
    if not 0 <= stride < room:
        raise InputError(f"model.stride is {stride}; with model.max_length {max_length} it is below {room}")
    word_rows = offsets_of([len(example.words) for example in examples])
    ids, word_first = _subwords([word for example in examples for word in example.words], tokenizer)
    row_subwords = np.append(word_first, len(ids))[word_rows]
    windows, window_rows = _windows(row_subwords, room, stride)
    return EncodedCorpus(
        ids,
        word_rows,
        word_first,
        *_annotation(examples, labels, word_rows),
        window_rows,
        windows,
        np.minimum(windows + room, np.repeat(row_subwords[1:], np.diff(window_rows))),
        _words_of_windows(windows, window_rows, word_rows, word_first, room),
        special_ids(tokenizer),
    )


def offsets_of(lengths: Sequence[int]) -> np.ndarray:
    """Lengths (n,) → offsets (n + 1,): item i is [offsets[i], offsets[i + 1])."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def special_ids(tokenizer: Tokenizer) -> tuple[int, int, int]:
    """Ids of [CLS], [SEP] and the padding, whatever they are called."""
    ids = tokenizer.encode("").ids
    if len(ids) != 2:
        raise InputError(f"the tokenizer puts {len(ids)} special tokens around a text; BERT's puts 2")
    return ids[0], ids[1], tokenizer.token_to_id("[PAD]") or 0


def _subwords(words: list[str], tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Words (W,) → subword ids (S,) and the position of each word's first one (W,).

    WordPiece sees words one by one, so each distinct word is split once and the rest is gathering. A word of
    which the tokenizer leaves nothing (a zero-width space) becomes [UNK]: the model sees that there is a
    word, it is tagged like any other, and no later word's tag shifts."""
    numbers: dict[str, int] = {}
    index = np.fromiter((numbers.setdefault(word, len(numbers)) for word in words), np.int64, len(words))
    # a word that reads like a special token, "[SEP]", is text
    tokenizer.encode_special_tokens = True
    unknown = [tokenizer.token_to_id(tokenizer.model.unk_token)]
    pieces = [e.ids or unknown for e in tokenizer.encode_batch(list(numbers), add_special_tokens=False)]
    counts = np.array([len(piece) for piece in pieces], np.int64)
    table = np.array([i for piece in pieces for i in piece], np.int32)
    lengths = counts[index]
    starts = (np.cumsum(counts) - counts)[index]
    return table[ragged(starts, lengths)], np.cumsum(lengths) - lengths


def _windows(row_subwords: np.ndarray, room: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each window starts (V,), and each row's windows (N + 1,). A row's last window ends with it."""
    lengths = np.diff(row_subwords)
    step = room - stride
    counts = 1 + np.maximum(0, -(-(lengths - room) // step))
    window_rows = offsets_of(counts)
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


def _annotation(
    examples: Sequence[Example], labels: LabelSpace, word_rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    unknown_class, unknown_type = len(labels.classes), len(labels.types)
    classes = [
        UNLABELLED if e.label is None else labels.class_ids.get(e.label, unknown_class) for e in examples
    ]
    tagged = np.array([example.spans is not None for example in examples], bool)
    spans = [
        (first + start, first + end, labels.type_ids.get(label, unknown_type))
        for first, example in zip(word_rows, examples)
        for start, end, label in example.spans or ()
    ]
    spans = np.array(spans, np.int64).reshape(-1, 3).T
    tags = labels.tag_spans(*spans, int(word_rows[-1]))
    tags[~np.repeat(tagged, np.diff(word_rows))] = UNLABELLED
    return tags, np.array(classes, np.int32), tagged, spans
