"""Words → subwords. WordPiece splits words one by one, so each distinct word is split only once."""

import hashlib
from collections import defaultdict
from itertools import chain, count, islice

import numpy as np
from tokenizers import Tokenizer

from multitask.data.labels import concatenated_ranges

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd: powers of an even number become 0 modulo 2^64


class WordTokenizer:
    """A tokenizer with a cache of the words that it has split: rows, files and splits share most words.

    Args:
        tokenizer: reads words that look like special tokens, "[SEP]", as text from then on.
        max_words: the cache is emptied when it holds more."""

    def __init__(self, tokenizer: Tokenizer, max_words: int = 1 << 20):
        self.tokenizer, self.max_words = tokenizer, max_words
        tokenizer.encode_special_tokens = True
        self._clear()

    def number(self, words: list[str]) -> np.ndarray:
        """Words (W,) → a number for each distinct word, for `split` and `hash_rows`, until the next call."""
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
        unknown = [self.tokenizer.token_to_id(self.tokenizer.model.unk_token)]
        encodings = self.tokenizer.encode_batch_fast(words, add_special_tokens=False)
        pieces = [encoding.ids or unknown for encoding in encodings]
        self.ids = np.append(self.ids, np.array(list(chain.from_iterable(pieces)), np.int32))
        self.lengths = np.append(self.lengths, [len(piece) for piece in pieces])
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.hashes = np.append(self.hashes, np.array([_hash(word) for word in words], np.uint64))


def _hash(word: str) -> int:
    # Python's own hash differs from process to process
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest())
