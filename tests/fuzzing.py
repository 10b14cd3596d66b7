"""For fuzz tests: mutated files, values of any kind, and two sizes of runs of one property."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from multitask.common.errors import InputError

PIECES = [
    *(b"\n", b"\r", b"\0", b'"', b",", b"\t", b" ", b"{", b"[", b"}", b": ", b"&a ", b"*a", b"!!int "),
    *(b"---\n", b"\\ud800", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"B-"),
    *(b"# label = y\n", b"<<", b"9" * 5000, b"[" * 5000, b"NaN", b"null", b"-1", b"1e999"),
]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS | st.sampled_from(["task_a", "cuda", "bf16", "a", 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def examples(number: int):
    """Try so many examples of a property."""
    return settings(max_examples=number, suppress_health_check=list(HealthCheck), deadline=None)


def exhaustive(test):
    """Ten thousand examples, only with `-m exhaustive`."""
    return pytest.mark.exhaustive(examples(10_000)(test))


@st.composite
def mutated(draw, content: bytes) -> bytes:
    """A file with up to four changes: bytes flipped, cut, removed or inserted, lines repeated or moved."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 12))
        match draw(st.sampled_from(["flip", "cut", "remove", "insert", "repeat", "move"])):
            case "flip":
                content = content[:at] + bytes([draw(st.integers(0, 255))]) + content[at + 1 :]
            case "cut":
                content = content[:at]
            case "remove":
                content = content[:at] + content[at + length :]
            case "insert":
                piece = draw(st.sampled_from(PIECES) | st.binary(max_size=6))
                content = content[:at] + piece + content[at:]
            case "repeat":
                content = content[:at] + content[max(0, at - length) : at + length] + content[at:]
            case "move":
                rows = content.splitlines(keepends=True)
                content = b"".join(draw(st.permutations(rows))) if len(rows) < 40 else content
    return content


def result_or_none(read, *arguments):
    """The result of a call; None if it raises an InputError, whose lines must be short."""
    try:
        return read(*arguments)
    except InputError as error:
        assert str(error)
        assert all(len(line) < 1000 for line in str(error).split("\n"))
        return None
