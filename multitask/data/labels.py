"""Classes, entity types and tags: spans ↔ tags in every scheme, and decoding under its constraints."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from multitask.common.errors import InputError

TASKS = ("task_a", "task_b")
UNLABELLED = -100  # what torch's cross-entropy ignores
LEARNED_SCHEMES = ("IO", "BIO")
SCHEMES = (*LEARNED_SCHEMES, "IOB1", "BIOES", "BILOU")

_PREFIXED = re.compile(r"[BIESLUM]-.", re.DOTALL)
_BEGINS, _ENDS = frozenset("BSU"), frozenset("ESLU")
_SINGLE_LAST = {"BIOES": ("S", "E"), "BILOU": ("U", "L")}


class Span(NamedTuple):
    """An entity: the words [start, end) and its type."""

    start: int
    end: int
    label: str


def has_prefix(tag: str) -> bool:
    """Whether a tag reads like B-PERSON, not like PERSON."""
    return _PREFIXED.match(tag) is not None


def tags_to_spans(tags: Sequence[str], prefixed: bool = True) -> tuple[list[Span], int]:
    """A sentence's tags → its entities in order, and how many of them begin with a tag that begins none.

    Reads BIO, IOB1, BIOES, BILOU and BMES alike, and plain types with `prefixed=False`, as conlleval does
    (Tjong Kim Sang & De Meulder 2003): an entity begins at B, S or U, and wherever the type changes."""
    spans: list[Span] = []
    start: int | None = None
    label, began_inside = "", 0
    for position, tag in enumerate(tags):
        if tag == "O":
            if start is not None:
                spans.append(Span(start, position, label))
                start = None
            continue
        prefix, kind = (tag[0], tag[2:]) if prefixed else ("", tag)
        if start is not None and (kind != label or prefix in _BEGINS):
            spans.append(Span(start, position, label))
            start = None
        if start is None:
            start, label = position, kind
            began_inside += prefixed and prefix not in _BEGINS
        if prefix in _ENDS:
            spans.append(Span(start, position + 1, label))
            start = None
    if start is not None:
        spans.append(Span(start, len(tags), label))
    return spans, began_inside


def spans_to_tags(spans: Iterable[Span], length: int, scheme: str) -> list[str]:
    """Entities that do not overlap → `length` tags in one of SCHEMES. IO joins neighbours of one type."""
    tags, previous = ["O"] * length, None
    for span in sorted(spans):
        start, end, label = span
        if scheme == "IO":
            inside = first = last = single = label
        else:
            inside = last = f"I-{label}"
            single = first = f"B-{label}"
            if scheme == "IOB1" and not (previous and previous.end == start and previous.label == label):
                single = first = inside
            elif scheme in _SINGLE_LAST:
                single, last = (f"{prefix}-{label}" for prefix in _SINGLE_LAST[scheme])
        tags[start:end] = [first, *[inside] * (end - start - 2), last] if end - start > 1 else [single]
        previous = span
    return tags


@dataclass(frozen=True)
class LabelSpace:
    """What a model can say: task A's classes, task B's entity types, and the tag scheme that it learned.

    Tag 0 is O. IO has one tag a type; BIO has B- at 1, 3, 5, … and the same type's I- right after it."""

    classes: tuple[str, ...]
    types: tuple[str, ...]
    scheme: str = "IO"
    class_ids: dict[str, int] = field(init=False, repr=False, compare=False)
    type_ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        if self.scheme not in LEARNED_SCHEMES:
            raise ValueError(f"a model learns one of {', '.join(LEARNED_SCHEMES)}, not {self.scheme!r}")
        object.__setattr__(self, "class_ids", {name: i for i, name in enumerate(self.classes)})
        object.__setattr__(self, "type_ids", {name: i for i, name in enumerate(self.types)})

    @classmethod
    def from_tags(cls, classes: Sequence[str], tags: Sequence[str], scheme: str) -> "LabelSpace":
        """The inverse of `tags`. Raises ValueError for a list that `tags` could not have made."""
        types = tags[1:] if scheme == "IO" else [tag[2:] for tag in tags[1::2]]
        labels = cls(tuple(classes), tuple(types), scheme)
        if labels.tags != list(tags):
            raise ValueError(f"not a list of {scheme} tags: {', '.join(tags)}")
        return labels

    @property
    def tags(self) -> list[str]:
        if self.scheme == "IO":
            return ["O", *self.types]
        return ["O", *(f"{prefix}-{name}" for name in self.types for prefix in "BI")]

    def tag_spans(self, starts: np.ndarray, ends: np.ndarray, types: np.ndarray, words: int) -> np.ndarray:
        """Spans [starts, ends) of type ids → tag ids (words,). IO joins neighbours of one type."""
        tags = np.zeros(words, np.int32)
        inside = 1 + types if self.scheme == "IO" else 2 + 2 * types
        lengths = ends - starts
        tags[concatenated_ranges(starts, lengths)] = np.repeat(inside, lengths)
        if self.scheme == "BIO":
            tags[starts] -= 1
        return tags

    def find_spans(self, tags: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tag ids (W,) of sentences [offsets[i], offsets[i + 1]) → starts, ends, type ids of all entities.

        −1, a word without a prediction, is read as O. An I- that follows neither B- nor I- of its type begins
        an entity, as in `tags_to_spans`; decoded tags have none."""
        if len(tags) == 0:
            return (np.zeros(0, np.int64),) * 3
        types = np.where(tags > 0, tags - 1 if self.scheme == "IO" else (tags - 1) // 2, -1)
        new = np.ones(len(tags), bool)
        new[1:] = types[1:] != types[:-1]
        new[offsets[:-1][offsets[:-1] < len(tags)]] = True
        if self.scheme == "BIO":
            new |= tags % 2 == 1
        runs = np.flatnonzero(new)
        ends = np.append(runs[1:], len(tags))
        entity = types[runs] >= 0
        return runs[entity], ends[entity], types[runs[entity]]

    def decode(self, logits: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Word logits (W, K) of sentences [offsets[i], offsets[i + 1]) → the best valid tag ids (W,).

        IO allows every sequence. Under BIO an I- follows B- or I- of its own type only; the sequence with the
        highest sum of logits is found for all sentences at once, one step a word position (Viterbi 1967)."""
        if self.scheme == "IO" or not self.types or len(logits) == 0:
            return logits.argmax(1).astype(np.int32)
        return _viterbi(logits, offsets)


def labels_from_config(config: Any) -> LabelSpace:
    """The label space that a model's configuration holds; a task that it never learned has no names.

    Raises InputError where the names don't fit the scheme."""
    classes, scheme = getattr(config, "classes", None) or (), getattr(config, "tag_scheme", None)
    if scheme is None:
        return LabelSpace(tuple(classes), ())
    try:
        return LabelSpace.from_tags(classes, [config.id2label[i] for i in range(config.num_labels)], scheme)
    except (KeyError, ValueError) as error:
        raise InputError(f"the model's labels can't be used: {error}") from None


def concatenated_ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Positions of all ranges [start, start + length), one after another."""
    total = int(lengths.sum())
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(total)


def _viterbi(logits: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    lengths = np.diff(offsets)
    # longest first: the sentences still running are always the first rows
    order = np.argsort(-lengths, kind="stable")
    running = [int(n) for n in np.searchsorted(-lengths[order], -np.arange(lengths.max()), side="left")]
    starts = offsets[:-1][order]
    begin = np.arange(1, logits.shape[1], 2)
    inside = begin + 1

    score = logits[starts[: running[0]]].astype(np.float64)
    score[:, inside] = -np.inf
    last = np.zeros(len(order), np.int32)  # the best tag at a sentence's end
    from_best, from_begin = [], []
    for position in range(1, len(running) + 1):
        n = running[position] if position < len(running) else 0
        last[n : len(score)] = score[n:].argmax(1)
        if n == 0:
            break
        score = score[:n]
        best = score.argmax(1)
        stay, start = score[:, inside], score[:, begin]
        from_best.append(best)
        from_begin.append(start >= stay)
        step = np.repeat(score[np.arange(n), best][:, None], score.shape[1], 1)
        step[:, inside] = np.maximum(start, stay)
        score = step + logits[starts[:n] + position]

    tags = np.zeros(len(logits), np.int32)
    current = np.zeros(0, np.int32)
    for position in reversed(range(len(running))):
        n = running[position]
        ending = last[len(current) : n]
        current = np.concatenate([current, ending])
        tags[starts[:n] + position] = current
        if position:
            is_inside = (current > 0) & (current % 2 == 0)
            rows = np.arange(n)
            kind = np.maximum(current - 1, 0) // 2
            own = current - from_begin[position - 1][rows, kind]
            current = np.where(is_inside, own, from_best[position - 1]).astype(np.int32)
    return tags
