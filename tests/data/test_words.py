"""The words of raw texts."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from unicode_text import WHITE_SPACE

from multitask.data.words import find_words, is_unspaced, split_texts, split_words, word_splitter

TEXTS = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" .'-&@_/Ua1é\u0301\u200b字กำー"))
)


def words(text, splitter=None):
    offsets = split_words(text) if splitter is None else split_words(text, splitter)
    return [text[start:end] for start, end in offsets]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "O'Neill and AT&T left the U.S. in May.",
            ["O", "'", "Neill", "and", "AT&T", "left", "the", "U.S.", "in", "May", "."],
        ),
        ("Jordan's Berlin-based", ["Jordan", "'", "s", "Berlin", "-", "based"]),
        ("e.g., 3.5%", ["e.g.", ",", "3.5", "%"]),
        ("mail bob_99@x.org now!", ["mail", "bob_99@x.org", "now", "!"]),
        ("it’s and/or --", ["it", "’", "s", "and", "/", "or", "-", "-"]),
        ("cafe\u0301 नमस्ते", ["cafe\u0301", "नमस्ते"]),
        ("co\u00adop \u200b❤\ufe0f", ["co\u00adop", "\u200b", "❤\ufe0f"]),
        ("'quoted' a..b", ["'", "quoted", "'", "a", ".", ".", "b"]),
        ("下个星期五在南京", list("下个星期五在南京")),
        ("iPhone手机12", ["iPhone", "手", "机", "12"]),
        ("東京タワーで。", ["東", "京", "タ", "ワ", "ー", "で", "。"]),
        ("葛\U000e0100城 か\u3099き", ["葛\U000e0100", "城", "か\u3099", "き"]),
        ("กรุงเทพ น้ำ", ["ก", "รุ", "ง", "เ", "ท", "พ", "น้ำ"]),
        ("ຂ້ອຍ ភាសា ကျွ", ["ຂ້", "ອ", "ຍ", "ភា", "សា", "ကျွ"]),
        (
            "See https://x.org/a-b?q=1. Or (www.y.org/z), and http://字",
            [
                "See",
                "https://x.org/a-b?q=1",
                ".",
                "Or",
                "(",
                "www.y.org/z",
                ")",
                ",",
                "and",
                "http",
                ":",
                "/",
                "/",
                "字",
            ],
        ),
        ("George W. Bush took Vitamin C. J.", ["George", "W.", "Bush", "took", "Vitamin", "C.", "J", "."]),
        ("Plan B. it's", ["Plan", "B", ".", "it", "'", "s"]),
        ("", []),
        (" \t\u3000\n", []),
    ],
)
def test_words_by_example(text, expected):
    assert words(text) == expected


@pytest.mark.parametrize(
    ("joiners", "expected"),
    [
        ("", ["x", "-", "y", ".", "z", "U", ".", "S", ".", "it", "'", "s"]),
        ("-", ["x-y", ".", "z", "U", ".", "S", ".", "it", "'", "s"]),
        (".'", ["x", "-", "y.z", "U.S.", "it's"]),
    ],
)
def test_other_joiners_give_other_words(joiners, expected):
    assert words("x-y.z U.S. it's", word_splitter(joiners, others=False)) == expected


@given(TEXTS)
def test_each_character_except_white_space_is_in_one_word(text):
    covered = [i for start, end in split_words(text) for i in range(start, end)]
    assert covered == sorted(set(covered))
    assert "".join(text[i] for i in covered) == "".join(c for c in text if c not in WHITE_SPACE)


@given(st.text(st.characters(codec="ascii") | st.sampled_from("aB1. @_w/:\t\n\x1c"), max_size=30))
@example("see www.a.com/b. or http://x.y, Mr. B. Smith of AT&T")
def test_ascii_texts_have_the_words_of_the_general_rule(text):
    assert split_words(text) == split_words(text, word_splitter())


@given(TEXTS, st.booleans())
def test_words_of_a_text_are_found_in_it_and_no_others(text, spaced):
    parts = words(text)
    assert find_words(text, parts) == split_words(text)
    assert find_words(" ".join(parts), parts) is not None
    assert find_words(text + "!", parts) is find_words(text, [*parts, "!"]) is None


@pytest.mark.parametrize("character", ["ก", "あ", "ー", "字", "ခ", "ກ", "ភ"])
def test_scripts_without_blanks_are_known(character):
    assert is_unspaced(character) and not is_unspaced("é")


def test_long_text_without_white_space_is_split():
    assert words("a." * 100_000) == ["a." * 100_000]
    assert len(words("a'" * 100_000)) == 200_000
    assert len(words("กำ" * 60_000)) == 60_000
    assert len(words("https://" + "!" * 60_000)) == 60_004
    assert len(words("www.'" * 50_000)) == 150_000


PIECES = [
    "a",
    "B",
    "1",
    " ",
    "\n",
    "\x1c",
    ".",
    ". ",
    "U.S.",
    "&",
    "@",
    "_",
    ":",
    "://",
    "http",
    "www.",
    "<",
    "é",
    "字",
]


@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=8).map("".join), min_size=40, max_size=50))
@example(["", "a"] * 20)
@example(["."] * 40)
@example([""] * 40)
@example(["J. Bach", "B. ", "http://x", "www./", "a&b", "a& b", "x.y", "x. y"] * 5)
def test_many_texts_have_the_words_of_each_one(texts):
    found = split_texts(texts)
    for text, first, last in zip(texts, found.rows, found.rows[1:]):
        offsets = list(zip(found.starts[first:last].tolist(), found.ends[first:last].tolist()))
        assert offsets == split_words(text)
        assert found.words[first:last] == [text[start:end] for start, end in offsets]
