"""Classes, entity types and tags: spans ↔ tags in each scheme, and decoding to valid tag sequences."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from multitask.common.errors import InputError

TASKS = ("task_a", "task_b")
UNLABELLED = -100  # what torch's cross-entropy ignores
LEARNED_SCHEMES = ("IO", "BIO")
_PREFIXED = re.compile(r"[BIESLUM]-.", re.DOTALL)
_OTHER_PREFIX = re.compile(r"([BIESLUM])[-_](.+)", re.DOTALL | re.IGNORECASE)
_MAX_DOUBTFUL = 10  # types that look like tags are named; the rest is counted


class Span(NamedTuple):
    """An entity: the words [start, end) and its type.

    If the annotation begins or ends inside a word, these are all words that it touches, and `cut` has its
    character offsets [start, end)."""

    start: int
    end: int
    label: str
    cut: tuple[int, int] | None = None


def has_prefix(tag: str) -> bool:
    """Whether a tag looks like B-PERSON, not like PERSON."""
    return _PREFIXED.match(tag) is not None


def tags_to_spans(tags: Sequence[str], prefixed: bool = True) -> tuple[list[Span], int]:
    """The tags of a sentence → its entities in order, and how many of them begin with I, E, L or M.

    Reads BIO, IOB1, BIOES, BILOU and BMES and, unless `prefixed`, plain types. An entity begins at B, S or U
    and wherever the type changes, as in conlleval (Tjong Kim Sang & De Meulder 2003)."""
    spans: list[Span] = []
    begins, ends = ("B", "S", "U"), ("E", "S", "L", "U")
    is_open, began_inside = False, 0
    for position, tag in enumerate(tags):
        if tag == "O":
            is_open = False
            continue
        prefix, label = (tag[0], tag[2:]) if prefixed else ("", tag)
        if is_open and label == spans[-1].label and prefix not in begins:
            spans[-1] = Span(spans[-1].start, position + 1, label)
        else:
            spans.append(Span(position, position + 1, label))
            began_inside += prefixed and prefix not in begins
        is_open = prefix not in ends
    return spans, began_inside


def spans_to_tags(spans: Iterable[Span], length: int, scheme: str) -> list[str]:
    """Entities that do not overlap → BIO or IO tags of a sentence of `length` words."""
    tags = ["O"] * length
    for start, end, label, _ in spans:
        tags[start:end] = [label if scheme == "IO" else f"I-{label}"] * (end - start)
        if scheme == "BIO":
            tags[start] = f"B-{label}"
    return tags


def doubtful_types(names: Iterable[str]) -> list[str]:
    """Entity types → notices about those that look like the tag O, like a tag, or like another type."""
    names = list(dict.fromkeys(names))
    notices = [
        f"type {name}: entities have tags such as {'o or ' * (name == 'o')}B-{name}; is it the tag O?"
        for name in names
        if name in ("O", "o")
    ]
    spellings, bare = defaultdict(list), {name: _without_prefix(name) for name in names}
    for name in names:
        spellings[name.casefold()].append(name)
    alike = Counter(map(str.casefold, bare.values()))
    rest = [name for name in names if name not in ("O", "o")]
    # e_mail alone is a name; b_mail and i_mail, or each type with such a prefix, are tags
    all_prefixed = all(bare[name] != name for name in rest) and any(name[0] in "bB" for name in rest)
    tags = [
        name
        for name in rest
        if bare[name] != name and (notices or all_prefixed or alike[bare[name].casefold()] > 1)
    ]
    shown = tags[:_MAX_DOUBTFUL]
    notices += [f"type {name!r} looks like the tag {name[0].upper()}-{bare[name]}" for name in shown]
    if len(tags) > len(shown):
        notices.append(f"{len(tags) - len(shown):,} more types look like tags")
    for same in spellings.values():
        plain = [name for name in same if name in rest and name not in tags]
        if len(plain) > 1:
            notices.append(f"types {' and '.join(map(repr, plain))} differ only in case")
    return notices


def _without_prefix(name: str) -> str:
    match = _OTHER_PREFIX.fullmatch(name)
    return match[2] if match else name


@dataclass(frozen=True)
class LabelSpace:
    """The labels of a model: the classes of task A, the entity types of task B, and the tag scheme.

    Tag 0 is O. IO has one tag per type. BIO has B- at 1, 3, 5, … and I- of the same type right after it."""

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

    @property
    def tags(self) -> list[str]:
        """The names of all tags, by tag id."""
        if self.scheme == "IO":
            return ["O", *self.types]
        return ["O", *(f"{prefix}-{name}" for name in self.types for prefix in "BI")]

    def tag_spans(self, starts: np.ndarray, ends: np.ndarray, types: np.ndarray, words: int) -> np.ndarray:
        """Entities [starts, ends) with their type ids, (E,) each → tag ids (words,)."""
        tags = np.zeros(words, np.int32)
        inside = 1 + types if self.scheme == "IO" else 2 + 2 * types
        lengths = ends - starts
        tags[concatenated_ranges(starts, lengths)] = np.repeat(inside, lengths)
        if self.scheme == "BIO":
            tags[starts] -= 1
        return tags

    def find_spans(self, tags: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tag ids (W,) of sentences [offsets[i], offsets[i + 1]) → starts, ends and type ids of entities.

        −1, a word without a prediction, counts as O. An I- that follows neither B- nor I- of its type begins
        an entity, as in `tags_to_spans`."""
        types = np.where(tags > 0, tags - 1 if self.scheme == "IO" else (tags - 1) // 2, -1)
        begins = np.ones(len(tags), bool)  # whether a run of one entity, or of O, begins at this word
        begins[1:] = types[1:] != types[:-1]
        begins[offsets[:-1][offsets[:-1] < len(tags)]] = True
        if self.scheme == "BIO":
            begins |= tags % 2 == 1
        starts = np.flatnonzero(begins)
        ends = np.append(starts, len(tags))[1:]
        entity = types[starts] >= 0
        return starts[entity], ends[entity], types[starts[entity]]

    def decode(self, logits: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Logits (W, K) of the words of sentences [offsets[i], offsets[i + 1]) → the best valid tag ids (W,).

        Valid means for BIO that I- follows B- or I- of its type; IO allows every sequence. Best means the
        highest sum of logits (Viterbi 1967)."""
        tags = logits.argmax(1).astype(np.int32)
        if self.scheme == "IO" or not self.types or len(logits) == 0:
            return tags
        # where each word's best tag is allowed, no other sequence is better: that is so in most sentences
        invalid = np.flatnonzero(self._invalid_sentences(tags, offsets))
        if len(invalid):
            lengths = np.diff(offsets)[invalid]
            words = concatenated_ranges(offsets[invalid], lengths)
            tags[words] = _viterbi(logits[words], np.append(0, np.cumsum(lengths)))
        return tags

    def _invalid_sentences(self, tags: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Whether each sentence (N,) has an I- that follows neither B- nor I- of its type."""
        inside = (tags > 0) & (tags % 2 == 0)
        before = np.append(0, tags[:-1])
        before[offsets[:-1][offsets[:-1] < len(tags)]] = 0
        wrong = inside & (before != tags) & (before != tags - 1)
        return np.diff(np.append(0, np.cumsum(wrong))[offsets]) > 0


def labels_from_config(config: Any) -> LabelSpace:
    """The label space of a model's configuration. A task that the model has not learned has no labels.

    Raises InputError if the tags don't fit the scheme."""
    classes, scheme = tuple(getattr(config, "classes", None) or ()), getattr(config, "tag_scheme", None)
    if scheme is None:
        return LabelSpace(classes, ())
    try:
        tags = [config.id2label[i] for i in range(config.num_labels)]
        types = tags[1:] if scheme == "IO" else [tag[2:] for tag in tags[1::2]]
        labels = LabelSpace(classes, tuple(types), scheme)
        if labels.tags != tags:
            raise ValueError(f"not a list of {scheme} tags: {', '.join(tags)}")
    except (KeyError, ValueError) as error:
        raise InputError(f"the model's labels can't be used: {error}") from None
    return labels


def concatenated_ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Positions of all ranges [start, start + length), one after another."""
    total = int(lengths.sum())
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(total)


def _viterbi(logits: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """`LabelSpace.decode` for BIO: all sentences at once, one word position after the other."""
    lengths = np.diff(offsets)
    order = np.argsort(-lengths, kind="stable")  # longest first: unfinished sentences are the first rows
    starts = offsets[:-1][order]
    # sentences that have a word at each position
    running = np.searchsorted(-lengths[order], -np.arange(lengths.max()))
    K = logits.shape[1]  # tags
    begin = np.arange(1, K, 2)
    inside = begin + 1

    score = logits[starts[: running[0]]].astype(np.float64)
    score[:, inside] = -np.inf
    last = np.zeros(len(order), np.int32)  # the best tag at the end of each sentence
    previous = []  # at each position but the first: the best tag before each tag (sentences, K)
    for position, n in enumerate(running[1:], 1):
        last[n : len(score)] = score[n:].argmax(1)
        score = score[:n]
        best = np.repeat(score.argmax(1).astype(np.int32)[:, None], K, 1)
        best[:, inside] = np.where(score[:, begin] >= score[:, inside], begin, inside)
        previous.append(best)
        score = np.take_along_axis(score, best, 1) + logits[starts[:n] + position]
    last[: len(score)] = score.argmax(1)

    tags = np.zeros(len(logits), np.int32)
    current = last[: running[-1]]
    for position in range(len(running) - 1, -1, -1):
        tags[starts[: len(current)] + position] = current
        if position:
            before = previous[position - 1][np.arange(len(current)), current]
            current = np.concatenate([before, last[len(current) : running[position - 1]]])
    return tags
