import json
from collections import Counter
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitask.common.errors import InputError
from multitask.data import splits as module
from multitask.data.corpus import encode
from multitask.data.labels import LabelSpace
from multitask.data.readers import read_corpus
from multitask.data.splits import read_split
from multitask.data.tokenization import WordTokenizer

LABELS = [LabelSpace(("sports",), ("PER", "LOC"), "BIO"), LabelSpace(("politics", "sports"), ("LOC", "PER"))]
BAD = {"tokens": ["a", "b"], "tags": ["O"], "key": 1}


def assert_same(one, other):
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        np.testing.assert_array_equal(a, b, field.name)
        assert np.asarray(a).dtype == np.asarray(b).dtype, field.name


def assert_same_split(one, other):
    assert one.arrays.keys() == other.arrays.keys()
    assert_same(one.corpus(LABELS[0]), other.corpus(LABELS[0]))
    np.testing.assert_array_equal(one.arrays["row_hashes"], other.arrays["row_hashes"])
    assert (one.class_names, one.type_names) == (other.class_names, other.type_names)
    assert (one.skipped, one.notices) == (other.skipped, other.notices)


@pytest.fixture
def files(write_rows, rows):
    """Two files, the first with a row that can't be used, and a notice."""
    return [write_rows("a.jsonl", [*rows[:3], BAD]), write_rows("b.jsonl", rows[3:])]


@pytest.fixture
def keep(tokenizer, tmp_path, monkeypatch):
    """read_split of a corpus that counts as large, kept in kept/."""
    monkeypatch.setattr(module, "CACHED_FROM_BYTES", 0)

    def call(paths, max_length=12, stride=3, on_bad_row="skip", cache_dir=tmp_path / "kept", **more):
        more = {"on_bad_row": on_bad_row, "cache_dir": cache_dir and str(cache_dir), **more}
        return read_split(paths, WordTokenizer(tokenizer), max_length, stride, **more)

    return call


@pytest.fixture
def no_reading(monkeypatch):
    def forbid():
        monkeypatch.setattr(module, "iter_examples", lambda *_: pytest.fail("the files are read"))

    return forbid


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("words", [1, 7, 1000])
def test_rows_encoded_part_by_part_are_as_if_encoded_at_once(tokenizer, files, monkeypatch, labels, words):
    monkeypatch.setattr(module, "_WORDS", words)
    split = read_split(files, WordTokenizer(tokenizer), 8, 2, "skip")
    corpus = split.corpus(labels)
    reading = read_corpus(files, "skip")
    whole = encode(reading.examples, tokenizer, labels, 8, 2)
    assert list(corpus.file_rows) == [0, 3, 8]
    assert_same(whole, type(corpus)(**{**vars(corpus), "file_rows": whole.file_rows}))
    assert (split.skipped, split.notices) == (reading.skipped, reading.notices)
    assert len(split) == 8 and len(split.skipped) == len(split.notices) == 1


def test_what_is_counted_is_what_the_examples_hold(tokenizer, write_rows, rows):
    touching = {"tokens": ["a", "b", "c"], "tags": ["B-PER", "B-PER", "B-LOC"]}
    path = write_rows("a.jsonl", [*rows, touching, {**touching, "tags": ["B-LOC"] * 3}, rows[0]])
    split = read_split([path], WordTokenizer(tokenizer), 64, 0)
    examples = read_corpus([path]).examples
    assert split.classes == Counter(e.label for e in examples)
    assert split.types == Counter(s.label for e in examples for s in e.spans or ())
    assert list(split.types) == split.type_names == ["PER", "LOC"]
    assert split.joined == 3
    assert len(np.unique(split.arrays["row_hashes"])) == len({tuple(e.words) for e in examples}) == 9


def test_a_corpus_that_was_kept_is_the_one_that_was_read(tokenizer, keep, files, no_reading, capfd):
    plain = keep(files, cache_dir=None)
    first = keep(files)
    no_reading()
    for split in (first, keep(files)):
        assert_same_split(split, plain)
        assert all(isinstance(array, np.memmap) for array in split.arrays.values())
        assert_same(split.corpus(LABELS[1]), plain.corpus(LABELS[1]))
    assert not any(isinstance(array, np.memmap) for array in plain.arrays.values())
    assert capfd.readouterr().err == ""


def test_only_a_large_corpus_is_kept_and_none_without_a_folder(keep, files, tmp_path, monkeypatch):
    keep(files, cache_dir=None)
    assert not (tmp_path / "kept").exists()
    monkeypatch.setattr(module, "CACHED_FROM_BYTES", 1 << 20)
    keep(files)
    assert not (tmp_path / "kept").exists()


def test_whatever_changes_the_arrays_or_the_messages_is_read_anew(keep, files, tmp_path, write_rows, rows):
    def kept():
        return len(list((tmp_path / "kept").iterdir()))

    keep(files)
    keep(files)
    assert kept() == 1
    keep(files, max_length=11)
    keep(files, stride=2)
    keep(files[::-1])
    elsewhere = [path.replace("/a.jsonl", "/./a.jsonl") for path in files]
    assert keep(elsewhere).skipped[0].startswith(elsewhere[0])
    keep(files[1:])
    keep(files[1:], on_bad_row="stop")
    assert kept() == 7
    write_rows("b.jsonl", [*rows[3:-1], {**rows[-1], "label": "weather"}])
    assert keep(files).class_names == ["sports", "politics", "weather"]
    write_rows("b.jsonl", rows[3:])
    assert keep(files).class_names == ["sports", "politics"]
    assert kept() == 8


@pytest.mark.parametrize("name", ["ids.npy", "said.npy", "manifest.json"])
def test_what_is_damaged_is_made_anew_with_a_line(keep, files, tmp_path, name, no_reading, capfd):
    first = keep(files)
    (path,) = (tmp_path / "kept").glob(f"*/{name}")
    path.write_bytes(path.read_bytes()[:-3])
    again = keep(files)
    assert_same_split(again, first)
    assert capfd.readouterr().err.count("can't be used and is made anew") == 1
    no_reading()
    assert_same_split(keep(files), first)
    assert capfd.readouterr().err == ""


def test_rows_that_stop_the_run_leave_nothing_behind(keep, files, tmp_path):
    with pytest.raises(InputError, match="(?s)a.jsonl:4: 2 tokens, but 1 tags\n.go on."):
        keep(files, on_bad_row="stop", hint="(go on)")
    with pytest.raises(InputError, match="nowhere.jsonl: no such file"):
        keep([*files, "nowhere.jsonl"])
    assert not (tmp_path / "kept").exists()


def test_a_file_that_changes_while_it_is_read_is_not_kept(keep, files, tmp_path, monkeypatch):
    real = module.iter_examples

    def stream(*arguments):
        with open(files[0], "a") as file:
            file.write(json.dumps({"text": "late"}) + "\n")
        return real(*arguments)

    monkeypatch.setattr(module, "iter_examples", stream)
    with pytest.raises(InputError, match="b.jsonl: changed while it was read"):
        keep(files)
    assert not (tmp_path / "kept").exists()


def test_a_corpus_without_room_on_the_disk_is_not_even_read(keep, files, monkeypatch, no_reading):
    monkeypatch.setattr(module, "_ROOM", 1 << 60)
    no_reading()
    with pytest.raises(InputError, match="b.jsonl, encoded, take about .* GB in .*kept"):
        keep(files)


def test_files_without_a_row_that_can_be_used_give_a_corpus_without_rows(keep, write_rows):
    for cache_dir in ({}, {"cache_dir": None}):
        split = keep([write_rows("a.jsonl", [BAD])], **cache_dir)
        assert (len(split), len(split.skipped), split.joined) == (0, 1, 0)
        assert list(split.corpus(LABELS[0]).window_words) == [0]


@given(st.lists(st.sampled_from([["B-A", "O"], ["A"], ["I-A", "I-A"], ["O"]]), min_size=1, max_size=6))
def test_first_tags_that_mislead_are_no_matter(tokenizer, tmp_path_factory, tags):
    folder = tmp_path_factory.mktemp("tags")
    path = folder / "a.jsonl"
    rows = [{"tokens": ["w"] * len(row), "tags": row} for row in tags]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reading = read_corpus([str(path)], "skip")
    large, module.CACHED_FROM_BYTES = module.CACHED_FROM_BYTES, 0
    try:
        splits = [
            read_split([str(path)], WordTokenizer(tokenizer), 64, 0, "skip", "", cache_dir)
            for cache_dir in (None, str(folder / "kept"))
        ]
    finally:
        module.CACHED_FROM_BYTES = large
    for split in splits:
        assert split.skipped == reading.skipped
        whole = encode(reading.examples, tokenizer, LABELS[0], 64, 0)
        assert_same(split.corpus(LABELS[0]), whole)
