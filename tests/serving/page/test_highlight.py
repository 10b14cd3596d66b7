"""Entities marked in a text: the whole text is shown, and it is escaped."""

import html
import re
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from multitask.common.shell import printable
from multitask.data.words import split_words
from multitask.inference.predictions import Entity, Word
from multitask.serving.page.view import TEMPLATES

MACROS = TEMPLATES.get_template("entities.html").module
LOOKS = {"PER": "type-0 line-0", "<script>alert(1)</script>": "type-1 line-0"}
TAG = re.compile(r'<span class="tag">.*?</span></mark>', re.DOTALL)


def shown(content: str) -> str:
    """The text that a browser shows, without the names of types."""
    return html.unescape(re.sub(r"<[^>]*>", "", TAG.sub("", content)))


def visible(text: str) -> str:
    return re.sub(r"[^\n\t]+", lambda match: printable(match[0]), text)


@st.composite
def texts(draw):
    text = draw(st.text(st.sampled_from("ab <>&'\"{}$\n\t é中\u202e\x00\u200b"), max_size=40))
    words = [Word(start, end, draw(st.sampled_from(["O", *LOOKS])), 0.5) for start, end in split_words(text)]
    cuts = draw(st.lists(st.integers(0, len(words)), unique=True).map(sorted)) if words else []
    pairs = [(words[a], words[b - 1]) for a, b in zip(cuts[::2], cuts[1::2])]
    spans = [(first.start, last.end) for first, last in pairs]
    kinds = st.sampled_from(list(LOOKS))
    return text, words, [Entity(start, end, text[start:end], draw(kinds), 0.9) for start, end in spans]


@given(texts(), st.booleans())
def test_the_whole_text_is_shown_unchanged(drawn, with_words):
    text, words, entities = drawn
    content = MACROS.highlighted(text, entities, LOOKS, words if with_words else (), entities[:1])
    assert shown(content) == visible(text)
    assert content.count("<mark") == len(entities)
    if with_words:
        assert content.count("<span title=") == len(words)
    assert "<script" not in content


def test_words_show_their_tag_and_entities_their_type_and_model():
    text = "anna won in paris"
    anna, paris = Entity(0, 4, "anna", "PER", 0.98765), Entity(12, 17, "paris", "PER", 0.5)
    words = [Word(0, 4, 'B-"PER"', 0.98765), Word(5, 8, "O", 0.25)]
    content = MACROS.highlighted(text, [anna, paris], LOOKS, words, [paris])
    assert '<span title="B-&#34;PER&#34; 0.988">anna</span><span class="tag"><bdi>PER</bdi></span>' in content
    assert '<span title="O 0.250">won</span> in <mark class="entity type-0 line-0 alone"\n' in content
    assert content.count("only here") == 1


def test_the_legend_counts_types_in_the_models_order():
    entities = [Entity(0, 1, "a", name, 1.0) for name in ("<script>alert(1)</script>", "PER", "PER")]
    items = re.findall(r"<li>.*?</li>", MACROS.legend(Counter(entity.label for entity in entities), LOOKS))
    assert [html.unescape(re.sub("<[^>]*>", "", item)) for item in items] == [
        "PER 2",
        "<script>alert(1)</script> 1",
    ]
    assert MACROS.legend(Counter(), LOOKS) == ""
