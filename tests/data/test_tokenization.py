"""A cache of split words must not change what they are split into."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from test_corpus import SENTENCES

from multitask.data.corpus import lengths_to_offsets
from multitask.data.tokenization import WordTokenizer


def split(subwords, sentences):
    """The subwords of each word, and the hash of each row."""
    words = [word for row in sentences for word in row]
    index = subwords.number(words)
    ids, first = subwords.split(index)
    return [list(part) for part in np.split(ids, first[1:])], subwords.hash_rows(
        index, lengths_to_offsets([len(row) for row in sentences])
    )


@given(sentences=st.lists(SENTENCES, min_size=2, max_size=4))
def test_cached_words_change_nothing(tokenizer, sentences):
    cached = WordTokenizer(tokenizer)
    for part in sentences:
        words, hashes = split(cached, part)
        expected_words, expected_hashes = split(WordTokenizer(tokenizer), part)
        assert words == expected_words
        np.testing.assert_array_equal(hashes, expected_hashes)


def test_full_cache_is_emptied(tokenizer):
    subwords = WordTokenizer(tokenizer, max_words=2)
    for row in (["anna", "won", "in"], ["paris", "anna"], ["won"]):
        assert split(subwords, [row])[0] == split(WordTokenizer(tokenizer), [row])[0]
    assert list(subwords.numbers) == ["paris", "anna", "won"]


@given(rows=st.lists(st.lists(st.sampled_from(["a", "b", "ab", "", "a b"]), max_size=6), min_size=1))
def test_rows_have_equal_hashes_if_and_only_if_their_words_are_equal(tokenizer, rows):
    _, hashes = split(WordTokenizer(tokenizer), rows)
    for row, number in zip(rows, hashes):
        for other, other_number in zip(rows, hashes):
            assert (row == other) == (number == other_number)
