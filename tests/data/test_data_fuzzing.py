"""Arbitrary and mutated data files are read or refused, and no row or word is lost.

Each property is tried with a few examples, and with ten thousand under `-m exhaustive`."""

import json
import tempfile
from contextlib import suppress
from pathlib import Path

from corpus_files import CONLL, JSONL, lines
from fuzzing import examples, exhaustive, mutated, result_or_none
from hypothesis import example, given
from hypothesis import strategies as st
from reading import read_corpus

from multitask.data.texts import read_texts

JOINTBERT = {
    "d/seq.in": "Anna won in Paris\na vote\n",
    "d/seq.out": "B-PER O O B-LOC\nO O\n",
    "d/label": "sports\npolitics\n",
}
TASK = {"data": {"text": "Anna won"}, "annotations": [{"result": []}]}
VALID = {
    "a.json": json.dumps([*JSONL, TASK, ["Anna won", {"entities": [[0, 4, "PER"]]}]], indent=1),
    "a.yml": "nlu:\n- intent: win\n  examples: |\n    - [Anna](PER) won\n    - a vote\n- lookup: x\n",
    "a.jsonl": lines([*JSONL, {"text": "Anna won", "entities": [{"start": 0, "end": 4, "label": "PER"}]}]),
    "a.conll": CONLL,
    "a.csv": 'text,label\n"Anna, ""won""",sports\nA vote,politics\n"two\nlines",x\n',
    "a.tsv": "text\tlabel\nAnna won\tsports\nA vote\tpolitics\n",
    "a.txt": CONLL,
    "texts": "Anna won\n\nA vote\n",
    **JOINTBERT,
}
FILES = st.sampled_from(sorted(VALID)).flatmap(
    lambda name: st.tuples(st.just(name), st.binary(max_size=200) | mutated(VALID[name].encode()))
)


def number_of_rows(name: str, content: bytes) -> int | None:
    """The number of rows of a file, counted without reading them; None for formats where that is hard."""
    if name == "a.jsonl":
        text = content.decode("utf-8", "surrogateescape").removeprefix("\ufeff").strip()
        with suppress(ValueError, RecursionError):
            return 1 if isinstance(json.loads(text), dict) else None  # one value, over several lines
        return sum(bool(line.strip()) for line in text.split("\n"))
    return number_of_lines(content) if name in JOINTBERT else None


def number_of_lines(content: bytes) -> int:
    return content.count(b"\n") + (not content.endswith(b"\n") and content != b"")


def check_file(name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.parent.mkdir(exist_ok=True)
        for member in JOINTBERT if name in JOINTBERT else ():
            (Path(folder) / member).write_text(VALID[member])
        path.write_bytes(content)
        if name == "texts":
            texts = result_or_none(lambda: list(read_texts(str(path))))
            assert texts is None or len(texts) == number_of_lines(content)
            return
        source = str(path.parent if name in JOINTBERT else path)
        result = result_or_none(read_corpus, [source], "skip")
        if result is None:
            return
        assert result.rows == len(result.examples) + len(result.skipped)
        assert all(len(line) < 500 for line in [*result.skipped, *result.notices])
        assert number_of_rows(name, content) in (None, result.rows)
        for row in result.examples:
            assert row.words
            assert all(0 <= start < end <= len(row.words) for start, end, *_ in row.spans or ())
            json.dumps([row.words, row.label, row.text], ensure_ascii=False).encode()
        assert (result_or_none(read_corpus, [source]) is None) == bool(result.skipped)


def check_words_of_conll(content: bytes) -> None:
    """Every line with a word is one word of an example, unless a row is skipped."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.conll"
        path.write_bytes(content)
        result = result_or_none(read_corpus, [str(path)], "skip")
    if result is None or result.skipped:
        return
    text = content.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    rows = [
        line
        for line in text.split("\n")
        if line.strip() and not line.startswith("#") and not line.lstrip().startswith("-DOCSTART-")
    ]
    comments = text.count("#") + text.count("-DOCSTART-")
    words = sum(len(example.words) for example in result.examples)
    assert len(rows) <= words <= len(rows) + comments


@examples(150)
@given(FILES)
@example(("a.conll", b"a O\n# label = x\nb O\n"))
@example(("a.csv", b'"text'))
def test_data_file_is_read_or_refused(file):
    check_file(*file)


@exhaustive
@given(FILES)
def test_data_file_is_read_or_refused_exhaustively(file):
    check_file(*file)


@examples(60)
@given(mutated(CONLL.encode()))
def test_no_word_of_a_conll_file_is_lost(content):
    check_words_of_conll(content)


@exhaustive
@given(mutated(CONLL.encode()))
def test_no_word_of_a_conll_file_is_lost_exhaustively(content):
    check_words_of_conll(content)
