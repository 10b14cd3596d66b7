from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from multitask.common.errors import InputError
from multitask.data.labels import (
    SCHEMES,
    LabelSpace,
    Span,
    concatenated_ranges,
    labels_from_config,
    spans_to_tags,
    tags_to_spans,
)

TYPES = ("LOC", "ORG", "B-x")  # one that itself looks like a prefixed tag


@st.composite
def annotated(draw, types=TYPES):
    """A sentence's length and entities that do not overlap."""
    spans, position = [], draw(st.integers(0, 2))
    while position < 14 and draw(st.booleans()):
        end = position + draw(st.integers(1, 4))
        spans.append(Span(position, end, draw(st.sampled_from(types))))
        position = end + draw(st.integers(0, 2))
    return max([draw(st.integers(0, 3)), *(span.end for span in spans)]), spans


def joined(spans):
    """What IO keeps of spans: neighbours of one type are one."""
    result = []
    for span in spans:
        if result and result[-1].end == span.start and result[-1].label == span.label:
            span = Span(result.pop().start, span.end, span.label)
        result.append(span)
    return result


@pytest.mark.parametrize("scheme", SCHEMES)
@given(sentence=annotated())
def test_every_scheme_gives_the_spans_back(scheme, sentence):
    length, spans = sentence
    tags = spans_to_tags(spans, length, scheme)
    assert len(tags) == length
    found, began_inside = tags_to_spans(tags, prefixed=scheme != "IO")
    assert found == (joined(spans) if scheme == "IO" else spans)
    if scheme not in ("IOB1", "IO"):
        assert began_inside == 0


@given(st.lists(st.sampled_from(["O", *(f"{p}-{t}" for p in "BIES" for t in ("x", "y"))]), max_size=12))
def test_any_tags_are_read_as_seqeval_reads_them(tags):
    assert [(s.label, s.start, s.end - 1) for s in tags_to_spans(tags)[0]] == get_entities(tags)


def test_schemes_by_example():
    spans = [Span(0, 2, "PER"), Span(2, 3, "PER"), Span(4, 5, "LOC")]
    assert spans_to_tags(spans, 5, "IO") == ["PER", "PER", "PER", "O", "LOC"]
    assert spans_to_tags(spans, 5, "BIO") == ["B-PER", "I-PER", "B-PER", "O", "B-LOC"]
    assert spans_to_tags(spans, 5, "IOB1") == ["I-PER", "I-PER", "B-PER", "O", "I-LOC"]
    assert spans_to_tags(spans, 5, "BIOES") == ["B-PER", "E-PER", "S-PER", "O", "S-LOC"]
    assert spans_to_tags(spans, 5, "BILOU") == ["B-PER", "L-PER", "U-PER", "O", "U-LOC"]
    assert tags_to_spans(["I-PER", "I-PER", "B-PER", "O", "I-LOC"]) == (spans, 2)


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
    kept = sentences if scheme == "BIO" else [(length, joined(s)) for length, s in sentences]
    np.testing.assert_array_equal(np.array(labels.find_spans(ids, offsets)), flat(kept, labels)[1])


@given(
    st.lists(st.lists(st.integers(-1, 6), max_size=7), max_size=4),
)
def test_spans_of_any_predicted_tags_are_those_of_the_slow_way(sentences):
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
def test_decoding_finds_the_best_valid_sequence(types):
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


def test_decoding_plain_tags_takes_the_best_of_each_word():
    logits = np.random.default_rng(0).normal(size=(30, 3))
    labels = LabelSpace((), ("x", "y"), "IO")
    assert (labels.decode(logits, np.array([0, 10, 30])) == logits.argmax(1)).all()


@pytest.mark.parametrize("scheme", ["IO", "BIO"])
def test_label_space_comes_back_from_its_tags(scheme):
    labels = LabelSpace(("a",), TYPES, scheme)
    assert LabelSpace.from_tags(labels.classes, labels.tags, scheme) == labels


class Config:
    classes, num_labels = ["a"], 3

    def __init__(self, tag_scheme, tags):
        self.tag_scheme, self.id2label = tag_scheme, dict(enumerate(tags))


def test_a_configuration_that_never_learned_tags_has_no_types():
    assert labels_from_config(Config(None, ["LABEL_0", "LABEL_1", "LABEL_2"])) == LabelSpace(("a",), ())
    assert labels_from_config(Config("BIO", ["O", "B-x", "I-x"])).types == ("x",)


@pytest.mark.parametrize("tags", [["O", "B-x", "B-y"], ["B-x", "I-x", "O"], ["O", "B-x"]])
def test_tags_that_do_not_fit_their_scheme_are_refused(tags):
    with pytest.raises(InputError, match="labels can't be used"):
        labels_from_config(Config("BIO", tags))


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5))))
def test_ragged_is_all_ranges_in_order(ranges):
    starts, lengths = np.array(ranges, int).reshape(-1, 2).T
    assert list(concatenated_ranges(starts, lengths)) == [i for s, n in ranges for i in range(s, s + n)]
