"""The words of a raw text, by one rule that looks at the text alone.

Training, evaluation and prediction therefore see the same words. benchmarks/words.py measures the rule on
real annotation: entities rarely begin or end at & @ _ and an inner dot, but often at an apostrophe, a hyphen
or a slash (Jordan's, Berlin-based, Paris/London)."""

import re

from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

JOINERS = "&@_."
RULE = 2  # increase it when a text gets other words; 1 also joined at ' ’ - /
# Scripts that are written without blanks between words, and two marks that Hiragana and Katakana share: here
# an extended grapheme cluster is a word (Unicode Standard Annex 29).
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\x{30FC}\x{FF70}"
# Letters and digits, with marks and format characters between them: café, नमस्ते, a soft hyphen.
_RUN = rf"[[\p{{L}}\p{{N}}]&&[^{_UNSPACED}]][[\p{{L}}\p{{N}}\p{{M}}\p{{Cf}}]&&[^{_UNSPACED}]]*"

Offsets = list[tuple[int, int]]


# A web address, without the punctuation after it: parts of it are rarely entities, but look like ones.
_ADDRESS = rf"(?:https?://|www\.)[^\s<>\"'{_UNSPACED}]*[[\p{{L}}\p{{N}}/]&&[^{_UNSPACED}]]"
# The initial in "George W. Bush". At the end of a sentence ("Vitamin C.") the dot is a word of its own.
_INITIAL = r"(?<![\p{L}\p{N}.])\p{Lu}\.(?=\s\p{Lu})"


def word_splitter(joiners: str = JOINERS, others: bool = True) -> Split:
    """A splitter that joins two runs of letters to one word at each of the characters `joiners`.

    With `others`, web addresses and initials with their dot are words too."""
    join = "".join(f"\\{character}" for character in joiners.replace(".", ""))
    word = rf"{_RUN}(?:[{join}]{_RUN})*" if join else _RUN
    if "." in joiners:
        # With an inner dot a closing dot belongs to the word (U.S.). The pattern tries the first inner dot
        # only once: the time is linear in the length of the text.
        word += rf"(?:\.{_RUN}(?:[.{join}]{_RUN})*\.?)?"
    if others:
        word = f"{_ADDRESS}|{_INITIAL}|{word}"
    # Any other character except white space is a word by itself, with its marks.
    return Split(Regex(rf"(?=[{_UNSPACED}])\X|{word}|\S\p{{M}}*"), behavior="removed", invert=True)


_SPLITTER = word_splitter()
# The same rule for ASCII, where Python's own expressions take half of the time.
_ASCII_WORD = re.compile(
    r"""(?:https?://|www\.)[^\s<>"']*[A-Za-z0-9/]"""
    r"|(?<![A-Za-z0-9.])[A-Z]\.(?=\s[A-Z])"
    r"|[A-Za-z0-9]+(?:[&@_][A-Za-z0-9]+)*(?:\.[A-Za-z0-9]+(?:[.&@_][A-Za-z0-9]+)*\.?)?"
    r"|\S",
    re.ASCII,
)


def split_words(text: str, splitter: Split = _SPLITTER) -> Offsets:
    """Character offsets [start, end) of the words of `text`.

    >>> [text[a:b] for a, b in split_words(text := "AT&T's U.S. office")]
    ['AT&T', "'", 's', 'U.S.', 'office']
    """
    if splitter is _SPLITTER and text.isascii():
        return [match.span() for match in _ASCII_WORD.finditer(text)]
    return [span for _, span in splitter.pre_tokenize_str(text)]


def find_words(text: str, words: list[str]) -> Offsets | None:
    """The character offsets of `words` in their text; None if anything but white space stands beside them."""
    offsets, end = [], 0
    for word in words:
        start = end
        while not text.startswith(word, start):
            if not text[start : start + 1].isspace():
                return None
            start += 1
        end = start + len(word)
        offsets.append((start, end))
    return None if text[end:].strip() else offsets


def is_unspaced(character: str) -> bool:
    """Whether a character belongs to a script that is written without blanks between words."""
    return bool(_UNSPACED_CHARACTER.pre_tokenize_str(character))


_UNSPACED_CHARACTER = Split(Regex(rf"[{_UNSPACED}]"), behavior="removed", invert=True)
