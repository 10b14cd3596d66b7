"""Spans ↔ tags, label spaces and decoding, each against a slow or another implementation."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from multitask.common.errors import InputError
from multitask.data.labels import (
    LabelSpace,
    Span,
    concatenated_ranges,
    labels_from_config,
    spans_to_tags,
    tags_to_spans,
)

TYPES = ("LOC", "ORG", "B-x")  # the last looks like a tag with a prefix
PREFIXES = {  # of the first, inner and last word of an entity, and of the only one
    "IO": ("", "", "", ""),
    "BIO": ("B-", "I-", "I-", "B-"),
    "IOB1": ("I-", "I-", "I-", "I-"),
    "BIOES": ("B-", "I-", "E-", "S-"),
    "BILOU": ("B-", "I-", "L-", "U-"),
}


@st.composite
def annotated(draw, types=TYPES):
    """The length of a sentence, and entities that do not overlap."""
    spans, position = [], draw(st.integers(0, 2))
    while position < 14 and draw(st.booleans()):
        end = position + draw(st.integers(1, 4))
        spans.append(Span(position, end, draw(st.sampled_from(types))))
        position = end + draw(st.integers(0, 2))
    return max([draw(st.integers(0, 3)), *(span.end for span in spans)]), spans


def write_tags(spans, length, scheme):
    """The tags of a sentence in any scheme."""
    first, inside, last, single = PREFIXES[scheme]
    tags = ["O"] * length
    for number, (start, end, label, _) in enumerate(spans):
        prefixes = [first, *[inside] * (end - start - 2), last] if end - start > 1 else [single]
        if scheme == "IOB1" and number and spans[number - 1][1:3] == (start, label):
            prefixes[0] = "B-"
        tags[start:end] = [prefix + label for prefix in prefixes]
    return tags


def joined(spans):
    """The spans that IO tags show: adjacent spans of one type are one."""
    result = []
    for span in spans:
        if result and result[-1].end == span.start and result[-1].label == span.label:
            span = Span(result.pop().start, span.end, span.label)
        result.append(span)
    return result


@pytest.mark.parametrize("scheme", PREFIXES)
@given(sentence=annotated())
def test_spans_come_back_from_the_tags_of_every_scheme(scheme, sentence):
    length, spans = sentence
    tags = write_tags(spans, length, scheme)
    result, began_inside = tags_to_spans(tags, prefixed=scheme != "IO")
    assert result == (joined(spans) if scheme == "IO" else spans)
    assert began_inside == 0 or scheme == "IOB1"
    if scheme in ("IO", "BIO"):
        assert spans_to_tags(spans, length, scheme) == tags


@given(st.lists(st.sampled_from(["O", *(f"{p}-{t}" for p in "BIES" for t in ("x", "y"))]), max_size=12))
def test_any_tags_give_the_entities_of_seqeval(tags):
    assert [(s.label, s.start, s.end - 1) for s in tags_to_spans(tags)[0]] == get_entities(tags)


def test_schemes_by_example():
    spans = [Span(0, 2, "PER"), Span(2, 3, "PER"), Span(4, 5, "LOC")]
    assert spans_to_tags(spans, 5, "IO") == ["PER", "PER", "PER", "O", "LOC"]
    assert spans_to_tags(spans, 5, "BIO") == ["B-PER", "I-PER", "B-PER", "O", "B-LOC"]
    assert tags_to_spans(["B-PER", "I-PER", "B-PER", "O", "B-LOC"]) == (spans, 0)
    assert tags_to_spans(["I-PER", "I-PER", "B-PER", "O", "I-LOC"]) == (spans, 2)
    assert tags_to_spans(["B-PER", "E-PER", "S-PER", "O", "S-LOC"]) == (spans, 0)
    assert tags_to_spans(["B-PER", "L-PER", "U-PER", "O", "U-LOC"]) == (spans, 0)


def flat(sentences, labels):
    """Sentences of (length, spans) → offsets, and starts, ends and type ids over all words."""
    offsets = np.concatenate([[0], np.cumsum([length for length, _ in sentences])]).astype(int)
    rows = [
        (offset + s.start, offset + s.end, labels.type_ids[s.label])
        for offset, (_, spans) in zip(offsets, sentences)
        for s in spans
    ]
    return offsets, np.array(rows, int).reshape(-1, 3).T


@pytest.mark.parametrize("scheme", ["IO", "BIO"])
@given(sentences=st.lists(annotated(), max_size=4))
def test_arrays_agree_with_one_sentence_at_a_time(scheme, sentences):
    labels = LabelSpace((), TYPES, scheme)
    offsets, spans = flat(sentences, labels)
    ids = labels.tag_spans(*spans, offsets[-1])
    slow = [tag for length, s in sentences for tag in spans_to_tags(s, length, scheme)]
    assert [labels.tags[i] for i in ids] == slow
    shown = sentences if scheme == "BIO" else [(length, joined(s)) for length, s in sentences]
    np.testing.assert_array_equal(np.array(labels.find_spans(ids, offsets)), flat(shown, labels)[1])


@given(st.lists(st.lists(st.integers(-1, 6), max_size=7), max_size=4))
def test_find_spans_agrees_with_tags_to_spans_for_any_predicted_tags(sentences):
    labels = LabelSpace((), TYPES, "BIO")
    offsets = np.concatenate([[0], np.cumsum([len(s) for s in sentences])]).astype(int)
    ids = np.array([i for s in sentences for i in s], np.int32)
    slow = [
        (offset + s.start, offset + s.end, labels.type_ids[s.label])
        for offset, tags in zip(offsets, sentences)
        for s in tags_to_spans([labels.tags[max(i, 0)] for i in tags])[0]
    ]
    assert list(zip(*map(list, labels.find_spans(ids, offsets)))) == slow


def valid(tags, labels):
    names = ["O", *(labels.tags[i] for i in tags)]
    return all(not b.startswith("I-") or a in (b, "B" + b[1:]) for a, b in zip(names, names[1:]))


@pytest.mark.parametrize("types", [("x",), ("x", "y")])
def test_decoding_gives_the_best_valid_sequence(types):
    labels, random = LabelSpace((), types, "BIO"), np.random.default_rng(0)
    K = len(labels.tags)
    for _ in range(150):
        lengths = random.integers(0, 5, 4)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        logits = random.normal(size=(offsets[-1], K)).astype(np.float32)
        decoded = labels.decode(logits, offsets)
        for first, last in zip(offsets, offsets[1:]):
            choices = [c for c in product(range(K), repeat=last - first) if valid(c, labels)]
            best = max(choices, key=lambda c: sum(logits[first + i, t] for i, t in enumerate(c)))  # noqa: B023
            assert tuple(decoded[first:last]) == best


def test_decoding_of_io_gives_the_best_tag_of_each_word():
    logits = np.random.default_rng(0).normal(size=(30, 3))
    labels = LabelSpace((), ("x", "y"), "IO")
    assert (labels.decode(logits, np.array([0, 10, 30])) == logits.argmax(1)).all()


class Config:
    classes, num_labels = ["a"], 3

    def __init__(self, tag_scheme, tags):
        self.tag_scheme, self.id2label = tag_scheme, dict(enumerate(tags))


@pytest.mark.parametrize(("scheme", "types"), [("IO", ("B-x", "LOC")), ("BIO", ("B-x",))])
def test_label_space_comes_back_from_a_config(scheme, types):
    labels = LabelSpace(("a",), types, scheme)
    assert labels_from_config(Config(scheme, labels.tags)) == labels


def test_config_without_tag_scheme_has_no_types():
    assert labels_from_config(Config(None, ["LABEL_0", "LABEL_1", "LABEL_2"])) == LabelSpace(("a",), ())


@pytest.mark.parametrize("tags", [["O", "B-x", "B-y"], ["B-x", "I-x", "O"], ["O", "B-x"]])
def test_tags_that_do_not_fit_their_scheme_are_refused(tags):
    with pytest.raises(InputError, match="labels can't be used"):
        labels_from_config(Config("BIO", tags))


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5))))
def test_concatenated_ranges_are_all_ranges_in_order(ranges):
    starts, lengths = np.array(ranges, int).reshape(-1, 2).T
    assert list(concatenated_ranges(starts, lengths)) == [i for s, n in ranges for i in range(s, s + n)]
