"""The words of raw texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unicode_text import WHITE_SPACE

from multitask.data.words import split_words

TEXTS = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" .'-&@_/Ua1é\u0301\u200b"))
)


def words(text, cuts=()):
    return [text[start:end] for start, end in split_words(text, cuts)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "O'Neill and AT&T left the U.S. in May.",
            ["O'Neill", "and", "AT&T", "left", "the", "U.S.", "in", "May", "."],
        ),
        ("e.g., 3.5%", ["e.g.", ",", "3.5", "%"]),
        ("mail bob_99@x-y.org now!", ["mail", "bob_99@x-y.org", "now", "!"]),
        ("it’s and/or --", ["it’s", "and/or", "-", "-"]),
        ("cafe\u0301 नमस्ते", ["cafe\u0301", "नमस्ते"]),
        ("co\u00adop \u200b❤\ufe0f", ["co\u00adop", "\u200b", "❤\ufe0f"]),
        ("'quoted' a..b", ["'", "quoted", "'", "a", ".", ".", "b"]),
        ("", []),
        (" \t\u3000\n", []),
    ],
)
def test_words_by_example(text, expected):
    assert words(text) == expected


@given(TEXTS)
def test_each_character_except_white_space_is_in_one_word(text):
    covered = [i for start, end in split_words(text) for i in range(start, end)]
    assert covered == sorted(set(covered))
    assert "".join(text[i] for i in covered) == "".join(c for c in text if c not in WHITE_SPACE)


@given(TEXTS, st.data())
def test_cuts_are_word_boundaries_and_change_nothing_else(text, data):
    cuts = data.draw(st.lists(st.integers(0, len(text))))
    offsets = split_words(text, cuts)
    assert all(not start < cut < end for start, end in offsets for cut in cuts)
    bounds = {0, len(text), *cuts, *(p for offset in split_words(text) for p in offset)}
    assert {p for offset in offsets for p in offset} <= bounds
    assert "".join(words(text, cuts)) == "".join(words(text))


def test_megabyte_without_white_space_is_split():
    assert words("a." * 500_000) == ["a." * 500_000]
    assert len(words("a'" * 500_000)) == 2
