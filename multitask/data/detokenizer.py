"""Words → the raw text that a person would have written, with English spacing."""

import re
from collections.abc import Sequence
from itertools import accumulate

from multitask.data.words import Offsets, is_unspaced

_NO_BLANK_BEFORE = re.compile(
    r"[.,!?;:%)\]}…”»、。，．！？；：）」』】]+|['’](?:s|m|d|re|ve|ll)|n['’]t", re.IGNORECASE
)
_NO_BLANK_AFTER = re.compile(r"[(\[{$#£€¥“‘«（「『【]")
_NO_BLANK_AROUND = ("-", "/")
_QUOTES = ('"', "'")  # the same character opens and closes


def detokenize(words: Sequence[str]) -> tuple[str, Offsets]:
    """Join words to a text, and give the character offsets of the words in it.

    There is no blank before closing punctuation, 's and n't, after opening brackets and currency signs,
    around - and /, inside a pair of quotes, or between characters of a script that is written without blanks.
    Every word stays as it is.

    >>> detokenize(["Jordan", "'s", "team", "(", "Acme", ")", "won", "."])[0]
    "Jordan's team (Acme) won."
    """
    parts: list[str] = []
    joins_next = True
    open_quotes: set[str] = set()
    for position, word in enumerate(words):
        before, joins_before = words[position - 1] if position else "", joins_next
        joins_next = word in _NO_BLANK_AROUND or _NO_BLANK_AFTER.fullmatch(word) is not None
        if word in _QUOTES:
            closes = word in open_quotes or (word == "'" and before.endswith("s"))
            open_quotes ^= {word} if word in open_quotes or not closes else set()
            joins_before, joins_next = joins_before or closes, not closes
        elif word in _NO_BLANK_AROUND or _NO_BLANK_BEFORE.fullmatch(word) or _unspaced(before, word):
            joins_before = True
        parts.append(word if joins_before else f" {word}")
    ends = list(accumulate(map(len, parts)))
    return "".join(parts), [(end - len(word), end) for word, end in zip(words, ends)]


def _unspaced(before: str, word: str) -> bool:
    return bool(before) and bool(word) and is_unspaced(before[-1]) and is_unspaced(word[0])
