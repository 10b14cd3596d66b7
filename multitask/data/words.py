"""The words of a raw text, by one rule for training from character spans and for prediction."""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import pairwise

from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

# Letters and digits, with marks and format characters between them: café, नमस्ते, a soft hyphen.
_RUN = r"[\p{L}\p{N}][\p{L}\p{N}\p{M}\p{Cf}]*"
# Runs joined by one inner . ' ’ - & @ _ / are one word. With an inner dot a closing dot belongs to it (U.S.).
# The pattern tries the first inner dot only once: the time is linear in the length of the text.
_WORD = rf"{_RUN}(?:['’\-&@_/]{_RUN})*(?:\.{_RUN}(?:[.'’\-&@_/]{_RUN})*\.?)?"
# Any other character except white space is a word by itself, with its marks.
_SPLIT = Split(Regex(rf"{_WORD}|\S\p{{M}}*"), behavior="removed", invert=True)

Offsets = list[tuple[int, int]]


def split_words(text: str, cuts: Iterable[int] = ()) -> Offsets:
    """Character offsets [start, end) of the words of `text`. The positions in `cuts` are word boundaries too.

    >>> [text[a:b] for a, b in split_words(text := "AT&T left the U.S. in May.")]
    ['AT&T', 'left', 'the', 'U.S.', 'in', 'May', '.']
    """
    offsets = [span for _, span in _SPLIT.pre_tokenize_str(text)]
    inner: dict[int, list[int]] = {}  # the cuts inside each word
    for cut in sorted(set(cuts)):
        at = bisect_left(offsets, (cut,)) - 1
        if at >= 0 and offsets[at][0] < cut < offsets[at][1]:
            inner.setdefault(at, []).append(cut)
    if not inner:
        return offsets
    parts: Offsets = []
    for at, (start, end) in enumerate(offsets):
        parts += pairwise([start, *inner.get(at, ()), end])
    return parts
