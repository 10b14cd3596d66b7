"""The right name that a wrong one was probably meant to be."""

from collections.abc import Iterable
from difflib import SequenceMatcher


def closest_name(name: str, candidates: Iterable[str], least: float = 0.5) -> str | None:
    """The candidate most like `name` in its last dotted part; None where none is like it.

    Initials count as likeness (lr, learning_rate), and of equals the one in the same section wins."""
    section, _, word = name.rpartition(".")

    def likeness(candidate: str) -> float:
        its_section, _, its_word = candidate.rpartition(".")
        same = SequenceMatcher(None, word, its_word).ratio()
        initials = word == "".join(part[:1] for part in its_word.split("_"))
        return same + 0.5 * initials + 0.05 * (section == its_section)

    best = max(candidates, key=likeness, default=None)
    return best if best is not None and likeness(best) >= least else None
