"""Encoded corpora: subwords as in transformers, windows, and labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from multitask.common.errors import InputError
from multitask.data.corpus import LabelNumbers, encode, encode_rows
from multitask.data.examples import Example
from multitask.data.labels import UNLABELLED, LabelSpace, Span
from multitask.data.tokenization import WordTokenizer, special_token_ids

LABELS = LabelSpace(("x", "y"), ("LOC", "PER"), "BIO")
NOTHING = ["\u200b", "\ufe0f", "\u00ad", "\u0301", "\x00", "\ufffd", "\u3000", "", " "]
WORD = st.one_of(
    st.sampled_from(["anna", "Paris", "winning", "O'Neill", "x-y.z", "[SEP]", "中国", *NOTHING]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)
SENTENCES = st.lists(st.lists(WORD, max_size=25), min_size=1, max_size=5)


def encoded(sentences, tokenizer, max_length=64, stride=0):
    return encode([Example(words) for words in sentences], tokenizer, LABELS, max_length, stride)


def pieces(corpus, word):
    """The subwords of a word."""
    ends = np.append(corpus.word_first[1:], len(corpus.ids))
    return list(corpus.ids[corpus.word_first[word] : ends[word]])


@pytest.fixture(scope="session")
def fast(tiny):
    return AutoTokenizer.from_pretrained(tiny)


@given(sentences=SENTENCES)
def test_subwords_are_those_of_transformers(tokenizer, fast, sentences):
    corpus = encoded(sentences, tokenizer)
    number = 0
    for row, words in enumerate(sentences):
        assert corpus.word_rows[row] == number
        if not words or any("[" in word for word in words):  # transformers reads special tokens in texts
            number += len(words)
            continue
        theirs = fast(words, is_split_into_words=True, add_special_tokens=False)
        by_word = {i: [] for i in range(len(words))}
        for token, word in zip(theirs["input_ids"], theirs.word_ids()):
            by_word[word].append(token)
        for word in range(len(words)):
            assert pieces(corpus, number) == (by_word[word] or [fast.unk_token_id])
            number += 1
    assert corpus.word_rows[-1] == number == len(corpus.word_first)


@pytest.mark.parametrize("word", NOTHING)
def test_word_without_subwords_becomes_unk_and_shifts_no_tag(tokenizer, word):
    example = Example(["anna", word, "paris"], [Span(0, 1, "PER"), Span(1, 2, "LOC"), Span(2, 3, "LOC")])
    corpus = encode([example], tokenizer, LABELS, 64, 0)
    assert pieces(corpus, 1) == [tokenizer.token_to_id("[UNK]")]
    assert [LABELS.tags[i] for i in corpus.word_tags] == ["B-PER", "B-LOC", "B-LOC"]
    assert pieces(corpus, 2) == [tokenizer.token_to_id("paris")]


def test_word_that_looks_like_a_special_token_is_text(tokenizer):
    corpus = encoded([["[SEP]", "[CLS]"]], tokenizer)
    assert not set(corpus.ids) & set(corpus.special)


@given(sentences=SENTENCES, max_length=st.integers(4, 20), data=st.data())
def test_windows_hold_every_subword_and_words_belong_to_the_window_with_most_context(
    tokenizer, sentences, max_length, data
):
    stride = data.draw(st.integers(0, max_length - 3))
    corpus = encoded(sentences, tokenizer, max_length, stride)
    bounds = np.append(corpus.word_first, len(corpus.ids))[corpus.word_rows]
    room = max_length - 2
    for row in range(len(sentences)):
        windows = range(corpus.window_rows[row], corpus.window_rows[row + 1])
        spans = [(corpus.window_start[w], corpus.window_end[w]) for w in windows]
        first, last = bounds[row], bounds[row + 1]
        assert len(windows) == (
            1 if last - first <= room else 1 + -(-(last - first - room) // (room - stride))
        )
        assert (spans[0][0], spans[-1][1]) == (first, last)
        for (start, end), (following, _) in zip(spans, spans[1:]):
            assert end - start == room
            assert start < following <= end - stride
        owned = [w for w in windows for _ in range(corpus.window_words[w], corpus.window_words[w + 1])]
        assert len(owned) == corpus.word_rows[row + 1] - corpus.word_rows[row]
        for word, window in zip(range(corpus.word_rows[row], corpus.word_rows[row + 1]), owned):
            at = corpus.word_first[word]
            # at the ends of the text, no context is missing
            context = {
                w: min(np.inf if s == first else at - s, np.inf if e == last else e - 1 - at)
                for w, (s, e) in zip(windows, spans)
                if s <= at < e
            }
            assert context[window] == max(context.values())


def test_missing_annotation_and_unknown_labels(tokenizer):
    examples = [
        Example(["a"], None, "x"),
        Example(["a", "b"], [Span(0, 2, "PER")], None),
        Example(["a"], [Span(0, 1, "ORG")], "z"),
    ]
    corpus = encode(examples, tokenizer, LABELS, 64, 0)
    assert list(corpus.row_classes) == [0, UNLABELLED, 2]
    assert list(corpus.row_tagged) == [False, True, True]
    assert list(corpus.word_tags[:3]) == [UNLABELLED, 3, 4]
    assert corpus.word_tags[3] >= len(LABELS.tags), "a type that the model lacks is always wrong"


def test_stride_as_large_as_a_window_is_refused(tokenizer):
    with pytest.raises(InputError, match="stride is 6"):
        encoded([["a"]], tokenizer, 8, 6)


def test_special_token_ids(tokenizer):
    names = ("[CLS]", "[SEP]", "[PAD]")
    assert special_token_ids(tokenizer) == tuple(map(tokenizer.token_to_id, names))


def test_no_rows(tokenizer):
    corpus = encode([], tokenizer, LABELS, 64, 0)
    assert (len(corpus), len(corpus.ids), list(corpus.window_words)) == (0, 0, [0])


@pytest.mark.parametrize("max_words", [1, 3, 4, 100])
def test_rows_are_encoded_in_parts(tokenizer, max_words):
    sentences = [["a", "b"], ["a"], ["won", "c", "d", "e"], ["f"], ["a", "b"]]
    rows = iter([Example(words) for words in sentences])
    subwords, names = WordTokenizer(tokenizer), LabelNumbers()
    parts = []
    while len(part := encode_rows(rows, subwords, names, 64, 0, max_words)["word_rows"]) > 1:
        parts.append([int(n) for n in np.diff(part)])
    assert [n for part in parts for n in part] == [len(words) for words in sentences]
    for part in parts[:-1]:
        assert sum(part) >= max_words > sum(part[:-1])
