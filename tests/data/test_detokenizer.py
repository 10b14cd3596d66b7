"""Words joined to a raw text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitask.data.detokenizer import detokenize


@pytest.mark.parametrize(
    "text",
    [
        "Jordan 's team ( Acme ) won , 3-1 .",
        '" Delete it , " she said . " Why ? "',
        "They did n't say it 'll cost $ 5 or 12 % .",
        "the players ' union and a ' fair ' share",
        "“ Yes ” ; it ’s in Berlin - based Paris / London",
    ],
)
def test_english_spacing(text):
    joined = {
        "J": "Jordan's team (Acme) won, 3-1.",
        '"': '"Delete it," she said. "Why?"',
        "T": "They didn't say it'll cost $5 or 12%.",
        "t": "the players' union and a 'fair' share",
        "“": "“Yes”; it’s in Berlin-based Paris/London",
    }
    assert detokenize(text.split())[0] == joined[text[0]]


def test_characters_of_scripts_without_blanks_are_joined_without_blanks():
    assert detokenize(["南", "京", "iPhone", "手机", "。"])[0] == "南京 iPhone 手机。"
    assert detokenize(["กรุง", "เทพ"])[0] == "กรุงเทพ"


@given(
    st.lists(
        st.text(min_size=1) | st.sampled_from(list("\"'-/().,$") + ["'s", "n't", "a", "京"]), max_size=12
    )
)
def test_every_word_is_in_the_text_at_its_offsets_with_at_most_one_blank_between(words):
    text, offsets = detokenize(words)
    assert [text[start:end] for start, end in offsets] == words
    ends = [0, *(end for _, end in offsets)]
    assert all(text[end:start] in ("", " ") for end, (start, _) in zip(ends, offsets))
    assert len(text) == ends[-1]
