"""The project's own corpus: valid, balanced, without leaks, and with the right numbers in its README."""

import re
from collections import Counter

import pytest
from conftest import ROOT
from reading import read_corpus

from multitask.data.examples import raw_example

SPLITS = ("train", "dev", "test")


@pytest.fixture(scope="module")
def corpus():
    readings = {split: read_corpus([ROOT / "corpus" / f"{split}.jsonl"]) for split in SPLITS}
    assert not any(reading.notices for reading in readings.values())
    return {split: reading.examples for split, reading in readings.items()}


def key(example):
    """A sentence without the parts that do not distinguish it."""
    return re.sub(r"\W+", " ", " ".join(example.words)).strip().lower()


def names(examples):
    return {" ".join(e.words[s.start : s.end]).lower() for e in examples for s in e.spans or ()}


def test_no_sentence_occurs_twice(corpus):
    counts = Counter(key(example) for examples in corpus.values() for example in examples)
    assert [sentence for sentence, count in counts.items() if count > 1] == []


def test_sizes_and_balance(corpus):
    assert len(corpus["train"]) >= 500
    assert (len(corpus["dev"]), len(corpus["test"])) == (100, 100)
    for split, examples in corpus.items():
        classes = Counter(e.label for e in examples if e.label)
        types = Counter(s.label for e in examples for s in e.spans or ())
        assert classes.keys() == {"sports", "politics", "technology"}
        assert types.keys() == {"PERSON", "ORG", "LOC"}
        for counts in (classes, types):
            assert min(counts.values()) > 0.8 * max(counts.values()), (split, counts)
        without = sum(e.spans == [] for e in examples) / sum(e.spans is not None for e in examples)
        assert 0.2 <= without <= 0.35, (split, without)


def test_names_of_the_test_set_are_mostly_new(corpus):
    for split in ("dev", "test"):
        held_out = names(corpus[split])
        assert len(held_out & names(corpus["train"])) <= 0.1 * len(held_out)


def test_both_forms_and_partial_annotation_occur(corpus):
    train = corpus["train"]
    assert 5 <= sum(e.text is None for e in train) <= len(train) / 5
    assert sum(e.label is None for e in train) >= 3
    assert sum(e.spans is None for e in train) >= 3
    for split in ("dev", "test"):
        assert all(e.label and e.spans is not None and e.text is not None for e in corpus[split])


def test_every_entity_can_be_predicted_from_the_raw_text(corpus):
    for examples in corpus.values():
        spans = [span for example in examples for span in raw_example(example).spans or ()]
        assert [span for span in spans if span.cut] == []


def test_raw_texts_are_written_as_people_write(corpus):
    texts = [raw_example(example).text for examples in corpus.values() for example in examples]
    assert [text for text in texts if re.search(r" [.,;:?!)%]|[(] | 's |\d, \d{3}\b|  |^ | $", text)] == []


def test_its_readme_has_the_right_numbers(corpus):
    text = (ROOT / "corpus" / "README.md").read_text(encoding="utf-8")
    for split, examples in corpus.items():
        types = Counter(s.label for e in examples for s in e.spans or ())
        classes = Counter(e.label for e in examples)
        figures = [
            len(examples),
            sum(len(e.words) for e in examples),
            *(classes[name] for name in ("politics", "sports", "technology")),
            *(types[name] for name in ("LOC", "ORG", "PERSON")),
            sum(e.spans == [] for e in examples),
            sum(e.label is None for e in examples),
            sum(e.spans is None for e in examples),
        ]
        row = f"| {split} | " + " | ".join(f"{figure:,}" for figure in figures) + " |"
        assert row in text, row
