import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from test_corpus import SENTENCES

from multitask.data import tokenization as module
from multitask.data.corpus import lengths_to_offsets
from multitask.data.tokenization import WordTokenizer


def split(subwords, sentences):
    """Every word's subwords, and every row's hash."""
    words = [word for row in sentences for word in row]
    index = subwords.number(words)
    ids, first = subwords.split(index)
    return [list(part) for part in np.split(ids, first[1:])], subwords.hash_rows(
        index, lengths_to_offsets([len(row) for row in sentences])
    )


@given(sentences=st.lists(SENTENCES, min_size=2, max_size=4))
def test_what_was_split_before_changes_nothing(tokenizer, sentences):
    remembers = WordTokenizer(tokenizer)
    for part in sentences:
        (words, hashes), (same_words, same_hashes) = (
            split(remembers, part),
            split(WordTokenizer(tokenizer), part),
        )
        assert words == same_words
        np.testing.assert_array_equal(hashes, same_hashes)


def test_words_that_are_forgotten_are_split_again(tokenizer, monkeypatch):
    monkeypatch.setattr(module, "_DISTINCT", 2)
    subwords = WordTokenizer(tokenizer)
    for row in (["anna", "won", "in"], ["paris", "anna"], ["won"]):
        assert split(subwords, [row])[0] == split(WordTokenizer(tokenizer), [row])[0]
    assert list(subwords.numbers) == ["paris", "anna", "won"]


@given(rows=st.lists(st.lists(st.sampled_from(["a", "b", "ab", "", "a b"]), max_size=6), min_size=1))
def test_rows_have_one_hash_if_their_words_are_the_same(tokenizer, rows):
    _, hashes = split(WordTokenizer(tokenizer), rows)
    for row, number in zip(rows, hashes):
        for other, other_number in zip(rows, hashes):
            assert (row == other) == (number == other_number)
