"""The words of a raw text, by one rule that looks at the text alone.

Training, evaluation and prediction therefore see the same words. benchmarks/words.py measures the rule on
real annotation: entities rarely begin or end at & @ _ and an inner dot, but often at an apostrophe, a hyphen
or a slash (Jordan's, Berlin-based, Paris/London)."""

import re
import string
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
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


class TextWords(NamedTuple):
    """The words of N texts, one after another; characters are counted in the word's own text."""

    words: list[str]  # (W,)
    rows: np.ndarray  # (N + 1,) words of text i: [rows[i], rows[i + 1])
    starts: np.ndarray  # (W,) each word's first character
    ends: np.ndarray  # (W,) the character after its last one

    def spaces(self, first: bool) -> list[bool]:
        """Whether white space stands before each word (W,); `first`: also before the first one of a text."""
        before = np.append(0, self.ends[:-1])
        begins = self.rows[:-1][np.diff(self.rows) > 0]
        before[begins] = -1 if first else 0
        return (self.starts > before).tolist()


def split_texts(texts: Sequence[str]) -> TextWords:
    """The words of texts: those that `split_words` finds, faster if there are many texts (3.2
    us instead of 7.1 for each of 4,096 texts of SNIPS).

    Most texts are in ASCII, and their words are runs of letters and digits, or other characters. Array
    operations find these in all texts at once. Other texts are split one by one."""
    if len(texts) < _MANY_TEXTS:
        return _one_by_one(texts)
    ascii_texts = [text if text.isascii() else "" for text in texts]
    joined = "\n".join(ascii_texts)
    lengths = np.fromiter(map(len, ascii_texts), np.int64, len(texts))
    begins = np.cumsum(lengths + 1) - lengths - 1  # of each text in `joined`
    characters = np.frombuffer(joined.encode(), np.uint8)
    run, other = _IS_RUN[characters], ~_IS_SPACE[characters]
    inside = run[:-1] & run[1:]  # whether the character after this one continues its run
    starts = np.flatnonzero(other & ~np.append(False, inside)[: len(run)])
    ends = np.flatnonzero(other & ~np.append(inside, False)[: len(run)]) + 1
    words = [joined[start:end] for start, end in zip(starts.tolist(), ends.tolist())]
    rows = np.append(np.searchsorted(starts, begins), len(starts))
    own = np.repeat(begins, np.diff(rows))
    found = TextWords(words, rows, starts - own, ends - own)

    differ = np.searchsorted(begins, _more_than_runs(characters), side="right") - 1
    differ = np.union1d(differ, [i for i, text in enumerate(texts) if not text.isascii()]).astype(np.int64)
    return _replace(found, differ, _one_by_one([texts[i] for i in differ.tolist()])) if len(differ) else found


def _one_by_one(texts: Sequence[str]) -> TextWords:
    offsets = [split_words(text) for text in texts]
    words = [text[start:end] for text, spans in zip(texts, offsets) for start, end in spans]
    rows = np.cumsum([0, *map(len, offsets)])
    starts, ends = np.array([span for spans in offsets for span in spans], np.int64).reshape(-1, 2).T
    return TextWords(words, rows, starts, ends)


def _replace(found: TextWords, rows: np.ndarray, others: TextWords) -> TextWords:
    """The words of texts, with those of `others` at these rows (sorted)."""
    counts = np.diff(found.rows)
    counts[rows] = np.diff(others.rows)
    parts, last = [], 0
    for number, row in enumerate(rows.tolist()):
        parts += [(found, last, found.rows[row]), (others, *others.rows[number : number + 2])]
        last = found.rows[row + 1]
    parts.append((found, last, found.rows[-1]))
    starts, ends = (
        np.concatenate([getattr(source, name)[first:end] for source, first, end in parts])
        for name in ("starts", "ends")
    )
    words = [word for source, first, end in parts for word in source.words[first:end]]
    return TextWords(words, np.append(0, np.cumsum(counts)), starts, ends)


def _more_than_runs(characters: np.ndarray) -> np.ndarray:
    """Places in ASCII texts where a word may be more than a run of letters and digits: a dot or a joiner
    inside a word, an initial, and an address."""
    places = np.flatnonzero(_IS_MARK[characters[1:-1]]) + 1
    before, this, after = (characters[places + step] for step in (-1, 0, 1))
    inner = _IS_RUN[before] & (~_IS_SPACE[after] | _IS_UPPER[before])
    return places[np.where(this == ord(":"), after == ord("/"), inner)]


def _table(members: str) -> np.ndarray:
    """Whether each ASCII character (128,) is one of the members."""
    return np.array([character in members for character in map(chr, range(128))])


_IS_RUN, _IS_UPPER = _table(string.ascii_letters + string.digits), _table(string.ascii_uppercase)
_IS_MARK, _IS_SPACE = _table(f"{JOINERS}:"), _table(string.whitespace)  # the six of \s in ASCII
_MANY_TEXTS = 32  # for fewer, one by one is as fast


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
