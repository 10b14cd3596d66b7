"""How much a server takes at once: past these it says so instead of growing."""

from dataclasses import dataclass

from multitask.data.rows import Example


@dataclass(frozen=True)
class Limits:
    """Sizes of what is sent, of a batch, and of what waits. Costs are those of `estimate_tokens`."""

    text_characters: int = 10_000
    texts: int = 1_000  # a request
    body_bytes: int = 1 << 20
    body_seconds: float = 30.0  # until a request's body is here
    file_bytes: int = 1 << 20  # dropped on the page, and
    file_rows: int = 5_000
    connections: int = 500
    batch_rows: int = 32
    batch_cost: int = 1_024
    batch_wait: float = 0.005  # seconds that a row waits for others to share its batch
    # what is accepted is answered before the server stops: three seconds of two slow cores
    waiting_cost: int = 15_000


def estimate_tokens(row: Example) -> int:
    """About how many tokens a row is, rather too many than too few: a word is one at least, and a token of
    less than three bytes is rare (a CJK character is one, of three)."""
    return 1 + max(len(row.words), len((row.text or "").encode(errors="replace")) // 3)
