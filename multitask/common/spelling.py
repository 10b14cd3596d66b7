"""Suggestions for misspelt names."""

from collections.abc import Iterable
from difflib import SequenceMatcher


def closest_name(name: str, candidates: Iterable[str], threshold: float = 0.5) -> str | None:
    """The candidate most similar to `name` in its last dotted part; None if none reaches `threshold`.

    Initials count (lr, learning_rate). Of equally similar candidates, the one in the same section wins."""
    section, _, word = name.rpartition(".")

    def similarity(candidate: str) -> float:
        other_section, _, other_word = candidate.rpartition(".")
        ratio = SequenceMatcher(None, word, other_word).ratio()
        initials = word == "".join(part[:1] for part in other_word.split("_"))
        return ratio + 0.5 * initials + 0.05 * (section == other_section)

    best = max(candidates, key=similarity, default=None)
    return best if best is not None and similarity(best) >= threshold else None
