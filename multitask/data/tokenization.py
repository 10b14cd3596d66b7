"""Words → subwords. WordPiece sees words one by one, so each distinct word is split once."""

import hashlib
from collections import defaultdict
from itertools import count, islice

import numpy as np
from tokenizers import Tokenizer

from multitask.data.labels import concatenated_ranges

_DISTINCT = 1 << 20  # words that are remembered; past that, all are forgotten
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no power of it is lost modulo 2^64


class WordTokenizer:
    """A tokenizer, and the words that it has split so far: texts, files and splits share most of theirs."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        tokenizer.encode_special_tokens = True  # a word that reads like a special token, "[SEP]", is text
        self._forget()

    def number(self, words: list[str]) -> np.ndarray:
        """Words (W,) → a number for each distinct one, for `split` and `hash_rows`, until the next call."""
        if len(self.numbers) > _DISTINCT:
            self._forget()
        known = len(self.numbers)
        index = np.fromiter(map(self.numbers.__getitem__, words), np.int64, len(words))
        if len(self.numbers) > known:
            self._learn(list(islice(self.numbers, known, None)))
        return index

    def split(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of words (W,) → subword ids (S,) and the position of each word's first one (W,)."""
        lengths = self.lengths[index]
        return self.ids[concatenated_ranges(self.starts[index], lengths)], np.cumsum(lengths) - lengths

    def hash_rows(self, index: np.ndarray, word_rows: np.ndarray) -> np.ndarray:
        """Numbers of words (W,) → a uint64 a row (N,), equal for rows of equal words.

        A polynomial in the hashes of the words, modulo 2^64, so that no row need be put together again."""
        lengths = np.diff(word_rows)
        position = np.arange(len(index)) - np.repeat(word_rows[:-1], lengths)
        powers = np.cumprod(np.full(lengths.max(initial=0), _BASE))
        sums = np.cumsum(np.append(np.uint64(0), self.hashes[index] * powers[position]))
        return sums[word_rows[1:]] - sums[word_rows[:-1]]

    def _forget(self) -> None:
        self.numbers: dict[str, int] = defaultdict(count().__next__)
        self.ids = np.zeros(0, np.int32)  # subwords of all distinct words, one after another
        self.lengths, self.starts = np.zeros((2, 0), np.int64)
        self.hashes = np.zeros(0, np.uint64)

    def _learn(self, words: list[str]) -> None:
        """Split words that are new.

        A word of which the tokenizer leaves nothing (a zero-width space) becomes [UNK]: the model sees that
        there is a word, it is tagged like any other, and no later word's tag shifts."""
        unknown = [self.tokenizer.token_to_id(self.tokenizer.model.unk_token)]
        encoded = self.tokenizer.encode_batch_fast(words, add_special_tokens=False)
        pieces = [e.ids or unknown for e in encoded]
        self.ids = np.append(self.ids, np.array([i for piece in pieces for i in piece], np.int32))
        self.lengths = np.append(self.lengths, [len(piece) for piece in pieces])
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.hashes = np.append(self.hashes, np.array([_hash(word) for word in words], np.uint64))


def _hash(word: str) -> int:
    # Python's own hash is another one in every process
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest())
