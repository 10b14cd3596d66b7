"""Limits of a server's memory and latency; requests beyond them are refused."""

from collections.abc import Sequence
from dataclasses import dataclass

from multitask.data.examples import Example


@dataclass(frozen=True)
class Limits:
    """Limits of connections, requests, files, batches and the queue. Costs are in tokens, by
    `estimate_tokens`."""

    # requests
    text_characters: int = 10_000
    texts: int = 1_000  # per request
    body_bytes: int = 1 << 20
    body_marks: int = 50_000  # commas, colons and opening brackets in a body of JSON
    body_seconds: float = 30.0  # for a body to arrive
    bodies_bytes: int = 16 << 20  # of the bodies of all requests in progress
    url_bytes: int = 8_192
    header_bytes: int = 8_192  # of one header
    headers: int = 100
    head_bytes: int = 1 << 15  # of all headers and the URL
    head_seconds: float = 10.0  # for the head to arrive
    # connections
    connections: int = 500
    client_connections: int = 250  # of one address
    idle_seconds: int = 5  # between two requests
    pipelined: int = 4  # requests that are sent before the answer to the first
    message_bytes: int = 8 << 20  # of a body as it is sent, with the frames of its chunks
    send_seconds: float = 10.0  # in which a client must read
    send_bytes: int = 1 << 18  # that many bytes of its answer, or all
    unsent_bytes: int = 128 << 20  # of all answers that clients have not read
    # files dropped on the page
    file_bytes: int = 1 << 20
    file_rows: int = 5_000
    files: int = 64  # that wait to be read
    files_bytes: int = 64 << 20  # of these
    file_seconds: float = 600.0  # that a file waits at most
    streams: int = 128  # of events, in all; an open page has one or two
    # the model
    busy_seconds: float = 30.0  # that the page waits for a busy model
    probe_seconds: float = 1.0  # between two looks whether an idle model answers
    answer_seconds: float = 10.0  # after which /health says that the model does not answer
    batch_seconds: float = 60.0  # after which a model that does not answer is restarted
    load_seconds: float = 300.0  # for a restarted model to load
    restarts: int = 5  # within
    restart_seconds: float = 600.0
    batch_rows: int = 32
    batch_cost: int = 1_024
    batch_wait: float = 0.005  # seconds that a row waits for others to join its batch
    # accepted rows are answered before the server stops: this much takes two slow cores three seconds
    waiting_cost: int = 15_000


def estimate_tokens(row: Example) -> int:
    """An estimate of a row's tokens, rather too high than too low: at least one per word and one per three
    bytes, since shorter tokens are rare and a CJK character is one token of three bytes."""
    return 1 + max(len(row.words), len((row.text or "").encode(errors="replace")) // 3)


def least_tokens(texts: Sequence[str], characters: int) -> int:
    """At most the sum of the estimates for the rows of these texts, before they are split into words. A text
    of more than `characters` is not read."""
    return sum(1 + len(text.encode(errors="replace")) // 3 for text in texts if len(text) <= characters)
