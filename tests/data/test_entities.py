"""Entities as character spans: which are exact, which end inside a word, and which are refused."""

import tempfile
from pathlib import Path

import pytest
from corpus_files import lines, read, skipped
from hypothesis import given
from hypothesis import strategies as st
from reading import read_corpus
from unicode_text import WHITE_SPACE

from multitask.common.errors import InputError
from multitask.data.labels import Span
from multitask.data.words import split_words

WORDS = "The Berlin-based AT&T's\u3000office 南京 กรุง e\u0301 \U0001f389 U.S."


def entity(start, end, label="X", **more):
    return {"start": start, "end": end, "label": label, **more}


def row(text, *entities, **more):
    return {"text": text, "entities": list(entities), **more}


def read_one(put, row):
    """The only example of a file with this row, and the notices without the path."""
    result = read(path := put("a.jsonl", lines([row])))
    (example,) = result.examples
    return example, [notice.replace(f"{path}:", "") for notice in result.notices]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Mina's sister sold Orbis's shares.", ["Mina", "Orbis"]),
        ("A Berlin-based firm and a Paris/London train", ["Berlin", "Paris", "London"]),
        ("下个星期五在南京", ["下个星期五", "南京"]),
        ("@ana wrote to AT&T in the U.S.", ["ana", "AT&T", "U.S."]),
    ],
)
def test_names_beside_apostrophes_hyphens_and_slashes_are_exact(put, text, found):
    example, notices = read_one(
        put, row(text, *(entity(text.index(t), text.index(t) + len(t)) for t in found))
    )
    spans = [example.offsets[span.start][0] for span in example.spans]
    assert spans == [text.index(t) for t in found]
    assert [span.cut for span in example.spans] == [None] * len(found)
    assert notices == []


def test_entities_that_end_inside_a_word_are_widened_and_shown(put):
    text = "Hello from India and New York "
    example, notices = read_one(
        put, row(text, entity(11, 15), entity(21, 30), entity(1, 5), entity(17, 19), entity(6, 10))
    )
    assert example.spans == [
        Span(0, 1, "X", (1, 5)),
        Span(1, 2, "X"),
        Span(2, 3, "X", (11, 15)),
        Span(3, 4, "X", (17, 19)),
        Span(4, 6, "X", (21, 30)),
    ]
    assert notices == [
        " warning: are the offsets right? 4 of 5 entities (80.0%) begin or end inside a word or at white "
        "space. Training widens them to whole words, scoring counts them as missed: "
        '1 "Hello" → "H|ello", 1 "India" → "Indi|a", 1 "and" → "an|d"'
    ]


def test_a_share_of_one_percent_is_no_warning(put):
    rows = [row("Hello India", entity(6, 11))] * 99 + [row("Hello India", entity(6, 10))]
    (notice,) = read(path := put("a.jsonl", lines(rows))).notices
    assert notice.startswith(f"{path}: 1 of 100 entities (1.0%) begin or end inside a word")
    assert notice.endswith(f'{path}:100 "India" → "Indi|a"')


@given(st.text(st.sampled_from(WORDS), max_size=30), st.data())
def test_an_entity_is_exact_if_words_of_the_text_alone_begin_and_end_there(text, data):
    ends = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    pairs = [(a, b) for a, b in zip(ends[::2], ends[1::2]) if text[a:b].strip(WHITE_SPACE)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_text(lines([row(text, *(entity(a, b) for a, b in pairs))]))
        examples = read(str(path)).examples
    if not examples:
        assert not text.strip(WHITE_SPACE)
        return
    (example,) = examples
    assert example.offsets == split_words(text)
    starts, ends = map(set, zip(*example.offsets))
    for span, (start, end) in zip(example.spans, pairs, strict=True):
        touched = [i for i, (a, b) in enumerate(example.offsets) if a < end and b > start]
        assert (span.start, span.end) == (touched[0], touched[-1] + 1)
        assert span.cut == (None if start in starts and end in ends else (start, end))


@pytest.mark.parametrize(
    ("text", "wrong", "reason"),
    [
        (
            "Hello from India",
            entity(11, 15, text="India"),
            "give 'Indi', but the entity is 'India'; the end is inclusive, and must be exclusive (11 to 16)",
        ),
        (
            "\U0001f389\U0001f389 Mina Sorel won",
            entity(5, 15, value="Mina Sorel"),
            "they count UTF-16 units, and must count characters (3 to 13)",
        ),
        ("Mina won", entity(1, 5, text="Mina"), "give 'ina ', but the entity is 'Mina'"),
        ("A Mina won", entity(3, 6, text="Mina"), "the start counts from 1, and must count from 0 (2 to 6)"),
        ("Mina won", entity(0, 90, text="Mina"), "give 'Mina won', but the entity is 'Mina'"),
    ],
)
def test_an_entity_whose_own_text_is_elsewhere_makes_the_row_bad(put, text, wrong, reason):
    (line,) = skipped(put("a.jsonl", lines([row(text, wrong)])))
    assert line.startswith("1: the offsets ") and line.endswith(reason)


def test_an_entity_with_its_own_text_and_right_offsets_is_read(put):
    text = "\U0001f389 Mina in Turin"
    example, notices = read_one(put, row(text, entity(2, 6, text="Mina"), entity(10, 15, value="Turin")))
    assert (example.spans, notices) == ([Span(1, 2, "X"), Span(3, 4, "X")], [])


def test_an_entity_given_twice_counts_once_and_two_types_are_refused(put):
    example, notices = read_one(put, row("Turin won", entity(0, 5), entity(0, 5), label="a"))
    assert example.spans == [Span(0, 1, "X")]
    assert notices == ["1: an entity is given twice; it counts once"]
    (line,) = skipped(put("b.jsonl", lines([row("Turin won", entity(0, 5), entity(0, 5, "Y"))])))
    assert line == "1: the entity from 0 to 5 is 'X' and 'Y'; a word has one tag"


def test_labels_are_stripped_of_white_space(put):
    example, _ = read_one(put, row("Turin won", entity(0, 5, " LOC\n"), label=" news "))
    assert (example.label, example.spans) == ("news", [Span(0, 1, "LOC")])
    examples = read(put("a.csv", "text,label\nhello,bye \nso long,bye\n")).examples
    assert [example.label for example in examples] == ["bye", "bye"]
    tagged = {"tokens": ["Mina", "met"], "tags": ["B-PER ", " O"]}
    (example,) = read(put("b.jsonl", lines([tagged]))).examples
    assert example.spans == [Span(0, 1, "PER")]


def test_notices_are_logged_before_the_reasons_of_bad_rows(put, capsys):
    path = put("a.jsonl", lines([{"tokens": ["a"], "ner_tag": ["O"]}, {"text": ""}]))
    result = read(path)
    assert result.notices and result.skipped
    with pytest.raises(InputError) as error:
        read_corpus([path])
    assert str(error.value).splitlines() == result.skipped
    assert capsys.readouterr().err.splitlines() == result.notices
