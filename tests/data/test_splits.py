"""Splits: encoded part by part as if at once, and the same from the cache."""

import json
import shutil
from collections import Counter
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import read_corpus

from multitask.common.errors import InputError
from multitask.data import splits as module
from multitask.data.corpus import encode
from multitask.data.labels import LabelSpace
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
    """Two files. The first has a bad row and causes a notice."""
    return [write_rows("a.jsonl", [*rows[:3], BAD]), write_rows("b.jsonl", rows[3:])]


@pytest.fixture
def read_cached(tokenizer, tmp_path, monkeypatch):
    """read_split with a cache in cache/, as if the files were large."""
    monkeypatch.setattr(module, "CACHED_FROM_BYTES", 0)

    def call(paths, max_length=12, stride=3, on_bad_row="skip", cache_dir=tmp_path / "cache", **more):
        more = {"on_bad_row": on_bad_row, "cache_dir": cache_dir and str(cache_dir), **more}
        return read_split(paths, WordTokenizer(tokenizer), max_length, stride, **more)

    return call


@pytest.fixture
def forbid_reading(monkeypatch):
    """Call it to let every later reading of files fail the test."""

    def forbid():
        monkeypatch.setattr(module, "iter_examples", lambda *_: pytest.fail("the files are read"))

    return forbid


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("words", [1, 7, 1000])
def test_parts_join_to_the_corpus_encoded_at_once(tokenizer, files, monkeypatch, labels, words):
    monkeypatch.setattr(module, "WORDS_PER_PART", words)
    split = read_split(files, WordTokenizer(tokenizer), 8, 2, "skip")
    corpus = split.corpus(labels)
    result = read_corpus(files, "skip")
    whole = encode(result.examples, tokenizer, labels, 8, 2)
    assert list(corpus.file_rows) == [0, 3, 8]
    assert_same(whole, type(corpus)(**{**vars(corpus), "file_rows": whole.file_rows}))
    assert (split.skipped, split.notices) == (result.skipped, result.notices)
    assert len(split) == 8 and len(split.skipped) == len(split.notices) == 1


def test_counts_are_those_of_the_examples(tokenizer, write_rows, rows):
    adjacent = {"tokens": ["a", "b", "c"], "tags": ["B-PER", "B-PER", "B-LOC"]}
    path = write_rows("a.jsonl", [*rows, adjacent, {**adjacent, "tags": ["B-LOC"] * 3}, rows[0]])
    split = read_split([path], WordTokenizer(tokenizer), 64, 0)
    examples = read_corpus([path]).examples
    assert split.classes == Counter(e.label for e in examples)
    assert split.types == Counter(s.label for e in examples for s in e.spans or ())
    assert list(split.types) == split.type_names == ["PER", "LOC"]
    assert split.joined == 3
    assert len(np.unique(split.arrays["row_hashes"])) == len({tuple(e.words) for e in examples}) == 9


def test_split_from_the_cache_equals_the_one_that_was_read(read_cached, files, forbid_reading, capfd):
    plain = read_cached(files, cache_dir=None)
    first = read_cached(files)
    forbid_reading()
    for split in (first, read_cached(files)):
        assert_same_split(split, plain)
        assert all(isinstance(array, np.memmap) for array in split.arrays.values())
        assert_same(split.corpus(LABELS[1]), plain.corpus(LABELS[1]))
    assert not any(isinstance(array, np.memmap) for array in plain.arrays.values())
    assert capfd.readouterr().err == ""


def test_only_large_files_are_cached(read_cached, files, tmp_path, monkeypatch):
    read_cached(files, cache_dir=None)
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(module, "CACHED_FROM_BYTES", 1 << 20)
    read_cached(files)
    assert not (tmp_path / "cache").exists()


def test_change_of_files_or_settings_is_another_entry(read_cached, files, tmp_path, write_rows, rows):
    def entries():
        return len(list((tmp_path / "cache").iterdir()))

    read_cached(files)
    read_cached(files)
    assert entries() == 1
    read_cached(files, max_length=11)
    read_cached(files, stride=2)
    read_cached(files[::-1])
    elsewhere = [path.replace("/a.jsonl", "/./a.jsonl") for path in files]
    assert read_cached(elsewhere).skipped[0].startswith(elsewhere[0])
    read_cached(files[1:])
    read_cached(files[1:], on_bad_row="stop")
    assert entries() == 7
    write_rows("b.jsonl", [*rows[3:-1], {**rows[-1], "label": "weather"}])
    assert read_cached(files).class_names == ["sports", "politics", "weather"]
    write_rows("b.jsonl", rows[3:])
    assert read_cached(files).class_names == ["sports", "politics"]
    assert entries() == 8


@pytest.mark.parametrize("name", ["ids.npy", "said.npy", "manifest.json"])
def test_damaged_entry_is_replaced_with_a_warning(read_cached, files, tmp_path, name, forbid_reading, capfd):
    first = read_cached(files)
    (path,) = (tmp_path / "cache").glob(f"*/{name}")
    path.write_bytes(path.read_bytes()[:-3])
    again = read_cached(files)
    assert_same_split(again, first)
    assert capfd.readouterr().err.count("can't be used and is made anew") == 1
    forbid_reading()
    assert_same_split(read_cached(files), first)
    assert capfd.readouterr().err == ""


def test_refused_files_leave_no_entry(read_cached, files, tmp_path):
    with pytest.raises(InputError, match="(?s)a.jsonl:4: 2 tokens, but 1 tags\n.go on."):
        read_cached(files, on_bad_row="stop", hint="(go on)")
    with pytest.raises(InputError, match="nowhere.jsonl: no such file"):
        read_cached([*files, "nowhere.jsonl"])
    assert not (tmp_path / "cache").exists()


def test_file_that_changes_while_it_is_read_is_not_cached(read_cached, files, tmp_path, monkeypatch):
    real = module.iter_examples

    def stream(*arguments):
        with open(files[0], "a") as file:
            file.write(json.dumps({"text": "late"}) + "\n")
        return real(*arguments)

    monkeypatch.setattr(module, "iter_examples", stream)
    with pytest.raises(InputError, match="b.jsonl: changed while it was read"):
        read_cached(files)
    assert not (tmp_path / "cache").exists()


def test_corpus_without_room_on_the_disk_is_not_read(read_cached, files, monkeypatch, forbid_reading):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    forbid_reading()
    with pytest.raises(InputError, match="b.jsonl, encoded, take about .* GB in .*cache"):
        read_cached(files)


def test_files_with_bad_rows_only_give_an_empty_corpus(read_cached, write_rows):
    for cache_dir in ({}, {"cache_dir": None}):
        split = read_cached([write_rows("a.jsonl", [BAD])], **cache_dir)
        assert (len(split), len(split.skipped), split.joined) == (0, 1, 0)
        assert list(split.corpus(LABELS[0]).window_words) == [0]


@given(st.lists(st.sampled_from([["B-A", "O"], ["A"], ["I-A", "I-A"], ["O"]]), min_size=1, max_size=6))
def test_misleading_first_tags_give_the_same_corpus(tokenizer, tmp_path_factory, tags):
    folder = tmp_path_factory.mktemp("tags")
    path = folder / "a.jsonl"
    rows = [{"tokens": ["w"] * len(row), "tags": row} for row in tags]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = read_corpus([str(path)], "skip")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CACHED_FROM_BYTES", 0)
        splits = [
            read_split([str(path)], WordTokenizer(tokenizer), 64, 0, "skip", "", cache_dir)
            for cache_dir in (None, str(folder / "cache"))
        ]
    for split in splits:
        assert split.skipped == result.skipped
        whole = encode(result.examples, tokenizer, LABELS[0], 64, 0)
        assert_same(split.corpus(LABELS[0]), whole)
