"""Rows of every kind: annotated for both tasks, for one, for none; long, short and empty."""

from multitask.data.examples import Example
from multitask.data.labels import LabelSpace, Span

LABELS = LabelSpace(("x", "y"), ("LOC", "PER"), "IO")
EXAMPLES = [
    Example(["anna", "won", "in", "paris"], [Span(0, 1, "PER"), Span(3, 4, "LOC")], "x"),
    Example(list("abcdefghijklmnop"), [Span(2, 9, "LOC")], "y"),
    Example(["vote"], None, "x"),
    Example(["the", "match"], [], None),
    Example([], None, None),
]
