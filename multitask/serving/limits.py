"""Limits of a server's memory and latency; requests beyond them are refused."""

from dataclasses import dataclass

from multitask.data.examples import Example


@dataclass(frozen=True)
class Limits:
    """Limits of requests, files, batches and the queue. Costs are in tokens, by `estimate_tokens`."""

    text_characters: int = 10_000
    texts: int = 1_000  # per request
    body_bytes: int = 1 << 20
    body_seconds: float = 30.0  # for a body to arrive
    file_bytes: int = 1 << 20  # of a file dropped on the page
    file_rows: int = 5_000
    busy_seconds: float = 30.0  # that the page waits for a busy model
    connections: int = 500
    batch_rows: int = 32
    batch_cost: int = 1_024
    batch_wait: float = 0.005  # seconds that a row waits for others to join its batch
    # accepted rows are answered before the server stops: this much takes two slow cores three seconds
    waiting_cost: int = 15_000


def estimate_tokens(row: Example) -> int:
    """An estimate of a row's tokens, rather too high than too low: at least one per word and one per three
    bytes, since shorter tokens are rare and a CJK character is one token of three bytes."""
    return 1 + max(len(row.words), len((row.text or "").encode(errors="replace")) // 3)
