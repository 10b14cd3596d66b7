"""Words → subwords. Each distinct word is split only once.

WordPiece sees words one by one. For other tokenizers, a word's subwords depend on whether white space stands
before it: " Oslo" and "Oslo" after a bracket are two entries of the cache. What a tokenizer joins across the
words of this project is split (docs/encoders.md counts how often that happens)."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from itertools import chain, count, islice
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from multitask.common.errors import InputError
from multitask.data.labels import concatenated_ranges

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd: powers of an even number become 0 modulo 2^64


class WordTokenizer:
    """A tokenizer with a cache of the words that it has split: rows, files and splits share most words.

    Args:
        tokenizer: reads words that look like special tokens, "[SEP]", as text from then on.
        max_words: the cache is emptied when it holds more.

    Attributes:
        sees_spaces: whether a word's subwords depend on white space before it.
        first_has_space: whether the tokenizer puts a space before the first word of a text."""

    def __init__(self, tokenizer: Tokenizer, max_words: int = 1 << 20):
        self.tokenizer, self.max_words = tokenizer, max_words
        tokenizer.encode_special_tokens = True
        self.splitter = tokenizer
        self.sees_spaces = self.first_has_space = False
        if not isinstance(tokenizer.model, WordPiece):
            self.splitter = _without_own_space(tokenizer)
            self.splitter.encode_special_tokens = True
            bare, spaced = self._ids("a"), self._ids(" a")
            self.sees_spaces = bare != spaced
            self.first_has_space = tokenizer.encode("a", add_special_tokens=False).ids == spaced
        self._clear()

    def number(self, words: list[str], spaces: Iterable[bool] | None = None) -> np.ndarray:
        """Words (W,) → a number for each distinct word, for `split` and `hash_rows`, until the next call.

        `spaces` (W,): whether white space stands before each word; needed where `sees_spaces`."""
        if self.sees_spaces:
            assert spaces is not None
            words = [f" {word}" if space else f"|{word}" for word, space in zip(words, spaces, strict=True)]
        if len(self.numbers) > self.max_words:
            self._clear()
        known = len(self.numbers)
        index = np.fromiter(map(self.numbers.__getitem__, words), np.int64, len(words))
        if len(self.numbers) > known:
            self._add(list(islice(self.numbers, known, None)))
        return index

    def split(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of words (W,) → subword ids (S,) and the position of each word's first subword (W,)."""
        lengths = self.lengths[index]
        return self.ids[concatenated_ranges(self.starts[index], lengths)], np.cumsum(lengths) - lengths

    def hash_rows(self, index: np.ndarray, word_rows: np.ndarray) -> np.ndarray:
        """Numbers of words (W,) → one uint64 per row (N,), equal for rows of equal words.

        A polynomial in the hashes of the words, modulo 2^64: array operations, no loop over rows."""
        lengths = np.diff(word_rows)
        position = np.arange(len(index)) - np.repeat(word_rows[:-1], lengths)
        powers = np.cumprod(np.full(lengths.max(initial=0), _BASE))
        sums = np.cumsum(np.append(np.uint64(0), self.hashes[index] * powers[position]))
        return sums[word_rows[1:]] - sums[word_rows[:-1]]

    def _clear(self) -> None:
        self.numbers: dict[str, int] = defaultdict(count().__next__)
        self.ids = np.zeros(0, np.int32)  # subwords of all distinct words, one after another
        self.lengths, self.starts = np.zeros((2, 0), np.int64)
        self.hashes = np.zeros(0, np.uint64)

    def _add(self, words: list[str]) -> None:
        """Split new words.

        If the tokenizer leaves nothing of a word (a zero-width space), it becomes [UNK]: the model sees that
        there is a word, and the tags of later words do not shift."""
        unknown = [unknown_id(self.tokenizer)]
        texts = [word.removeprefix("|") for word in words] if self.sees_spaces else words
        encodings = self.splitter.encode_batch_fast(texts, add_special_tokens=False)
        pieces = [encoding.ids or unknown for encoding in encodings]
        self.ids = np.append(self.ids, np.array(list(chain.from_iterable(pieces)), np.int32))
        self.lengths = np.append(self.lengths, [len(piece) for piece in pieces])
        self.starts = np.cumsum(self.lengths) - self.lengths
        hashed = [word[1:] for word in words] if self.sees_spaces else words  # rows of equal words are equal
        self.hashes = np.append(self.hashes, np.array([_hash(word) for word in hashed], np.uint64))

    def _ids(self, text: str) -> list[int]:
        return self.splitter.encode(text, add_special_tokens=False).ids


def unknown_id(tokenizer: Tokenizer) -> int | None:
    """The id for a word of which a tokenizer leaves nothing: its token for what it doesn't know or, in a
    vocabulary of bytes, the first of those of U+FFFD. None if it has neither."""
    token = getattr(tokenizer.model, "unk_token", None)
    for name in (token,) if token else ("[UNK]", "<unk>"):
        if (number := tokenizer.token_to_id(name)) is not None:
            return number
    if token:
        return None
    return next(iter(tokenizer.encode("\ufffd", add_special_tokens=False).ids), None)


def special_token_ids(tokenizer: Tokenizer) -> tuple[int, int, int]:
    """The ids of [CLS], [SEP] and [PAD], or of the tokens in their places; 0 where there is no padding.

    Raises InputError if a tokenizer puts other than one token before and one after a text."""
    ids = tokenizer.encode("").ids
    if len(ids) != 2:
        raise InputError(f"the tokenizer puts {len(ids)} special tokens around a text; two are needed")
    padding = map(tokenizer.token_to_id, ("[PAD]", "<pad>", "<|pad|>", "<|padding|>"))
    return ids[0], ids[1], next((number for number in padding if number is not None), 0)


def _without_own_space(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer that keeps a space before a text, and puts none there: a text that begins in the middle of
    another one."""
    fields = json.loads(tokenizer.to_str())
    for name in ("normalizer", "pre_tokenizer"):
        fields[name] = _keeps_space(fields[name])
    return Tokenizer.from_str(json.dumps(fields))


def _keeps_space(step: dict[str, Any] | None) -> dict[str, Any] | None:
    """A step of a tokenizer, or a sequence of them, without what changes the space before a text."""
    if step is None:
        return None
    for name in ("normalizers", "pretokenizers"):
        if name in step:
            kept = [other for other in map(_keeps_space, step[name]) if other is not None]
            return {**step, name: kept} if kept else None
    kind = step["type"]
    if kind in ("Prepend", "WhitespaceSplit"):
        return None
    changes: dict[str, dict[str, Any]] = {
        "Metaspace": {"prepend_scheme": "never"},
        "ByteLevel": {"add_prefix_space": False},
        "Strip": {"strip_left": False},
    }
    return {**step, **changes.get(kind, {})}


def _hash(word: str) -> int:
    # Python's own hash differs from process to process
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest())
