"""Any words and tags, written in each layout of columns, are read back the same or refused."""

import pytest
from fuzzing import examples
from hypothesis import assume, given
from hypothesis import strategies as st
from reading import read_corpus

from multitask.common.errors import InputError
from multitask.data.labels import tags_to_spans

TABS = {  # a line of each layout: n counts the words, w is the word and t the tag
    "two columns": "{w}\t{t}",
    "tab at the end": "{w}\t{t}\t",
    "tag first": "{t}\t{w}",
    "annotator": "{w}\t{t}\tanna",
    "CoNLL-2003": "{w}\tNNP\tx\t{t}",
    "counted": "{n}\t{w}\tNNP\t{t}",
    "UNER": "{n}\t{w}\t{t}\t-\tanna",
    "UNER, short": "{n}\t{w}\t{t}",
    "GermEval": "{n}\t{w}\t{t}\tO",
    "CoNLL-U": "{n}\t{w}\tx\tPROPN\tNNP\t_\t0\troot\t_\tNER={t}|SpaceAfter=No",
    "MultiCoNER": "{w} _ _\t{t}",
}
BLANKS = {
    "two columns, blanks": "{w} {t}",
    "CoNLL-2003, blanks": "{w} NNP x {t}",
    "MultiCoNER, blanks": "{w} _ _ {t}",
    "Label Studio": "{w} -X- _ {t}",
    "counted, blanks": "{n} {w} {t}",
}
LAYOUTS = {**TABS, **BLANKS}
del LAYOUTS["MultiCoNER"]  # blanks alone separate its columns

ODD = [
    "1",
    "2",
    "0",
    "#",
    "O",
    "o",
    "_",
    "-",
    "-X-",
    "B-PER",
    "NER=O",
    "=",
    "# text = a",
    "New York",
    "\u00a0",
]
LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\t\r\n\ufeff|")
WORDS = (
    st.sampled_from(ODD) | st.text(LETTERS, min_size=1, max_size=5) | st.text("abcz", min_size=1, max_size=3)
)
TAGS = st.sampled_from(["O", "O", "B-PER", "I-PER", "B-Job title", "I-Titre 1"])
SENTENCES = st.lists(st.lists(st.tuples(WORDS, TAGS), min_size=1, max_size=5), min_size=1, max_size=4)


def rendered(layout: str, sentences: list[list[tuple[str, str]]]) -> tuple[str, dict[int, tuple]]:
    """The text of a file, and what must be read from it: {line: (words, entities)}."""
    text, expected = "", {}
    for sentence in sentences:
        text += "#\thttp://a.example/b [2009-10-17]\n" if layout == "GermEval" else ""
        words, tags = zip(*sentence)
        expected[text.count("\n") + 1] = [*words], tags_to_spans(tags)[0]
        for n, (word, tag) in enumerate(sentence, 1):
            text += LAYOUTS[layout].format(n=n, w=word, t=tag) + "\n"
        text += "\n"
    return text, expected


def holds(layout: str, word: str, tag: str) -> bool:
    """Whether a layout can hold a word and a tag at all."""
    if layout in BLANKS and (" " in word or (" " in tag and layout != "Label Studio")):
        return False
    return bool(word.strip()) and word != "-DOCSTART-"


def looks_like_another(layout: str, sentences: list[list[tuple[str, str]]]) -> bool:
    """Whether most words are the numbers of words, or tags, where that is a sign of another layout."""
    numbered = [(n, word) for sentence in sentences for n, (word, _) in enumerate(sentence, 1)]
    odd = [layout == "tag first" and word in ("O", "B-PER") for _, word in numbered]
    if "{n}" not in LAYOUTS[layout]:
        odd = [either or word in (str(n), str(n - 1)) for either, (n, word) in zip(odd, numbered)]
    return 2 * sum(odd) >= len(odd)


@pytest.mark.parametrize("layout", LAYOUTS)
@examples(80)
@given(sentences=SENTENCES)
def test_words_and_tags_come_back_or_are_refused(tmp_path_factory, layout, sentences):
    assume(all(holds(layout, word, tag) for sentence in sentences for word, tag in sentence))
    assume(not looks_like_another(layout, sentences))
    text, expected = rendered(layout, sentences)
    path = tmp_path_factory.mktemp("columns") / "a.conll"
    path.write_bytes(text.encode())
    tags = {tag for sentence in sentences for _, tag in sentence}
    plain = all(word.isalpha() and len(word) > 1 for sentence in sentences for word, _ in sentence)
    several = len({word for sentence in sentences for word, _ in sentence}) > 1
    try:
        result = read_corpus([str(path)], "skip")
    except InputError as refusal:
        assert not (plain and several and tags > {"O"}), refusal
        return
    assert result.rows == len(expected)
    for example in result.examples:
        assert (example.words, example.spans) == expected[example.line]
    assert not (plain and result.skipped), result.skipped
