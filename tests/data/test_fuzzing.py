"""Arbitrary and mutated files: read, or refused in lines; nothing else comes out, and no row is lost.

Each property has one body. The usual run tries a few examples of it, `-m exhaustive` ten thousand."""

import json
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_readers import CONLL, JSONL, lines

from model import MultiTaskConfig, MultiTaskTransformer
from multitask.common.checksums import CHECKSUMS
from multitask.common.errors import InputError
from multitask.config.help_text import render_config, setting_keys
from multitask.config.loading import load_settings
from multitask.config.schema import Settings
from multitask.data.labels import labels_from_config
from multitask.data.readers import read_corpus, read_texts
from multitask.encoders.pretrained import load_model
from multitask.encoders.saving import save_model

VALID = {
    "a.jsonl": lines([*JSONL, {"text": "Anna won", "entities": [{"start": 0, "end": 4, "label": "PER"}]}]),
    "a.conll": CONLL,
    "a.csv": 'text,label\n"Anna, ""won""",sports\nA vote,politics\n"two\nlines",x\n',
    "a.tsv": "text\tlabel\nAnna won\tsports\nA vote\tpolitics\n",
    "a.txt": CONLL,
    "texts": "Anna won\n\nA vote\n",
    "d/seq.in": "Anna won in Paris\na vote\n",
    "d/seq.out": "B-PER O O B-LOC\nO O\n",
    "d/label": "sports\npolitics\n",
}
PIECES = [
    *(
        b"\n",
        b"\r",
        b"\0",
        b'"',
        b",",
        b"\t",
        b" ",
        b"{",
        b"[",
        b"}",
        b": ",
        b"&a ",
        b"*a",
        b"!!int ",
        b"---\n",
    ),
    *(b"\\ud800", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"B-", b"# label = y\n", b"<<"),
    *(b"9" * 5000, b"[" * 5000, b"NaN", b"null", b"-1", b"1e999"),
]


def exhaustive(test):
    """The same property with ten thousand examples."""
    return pytest.mark.exhaustive(tried(10_000)(test))


def tried(examples: int):
    return settings(max_examples=examples, suppress_health_check=list(HealthCheck), deadline=None)


@st.composite
def mutated(draw, content: bytes) -> bytes:
    """A file in which a few places were changed: flipped, cut, taken away, put in, or lines doubled."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 12))
        match draw(st.sampled_from(["flip", "cut", "take", "put", "double", "move"])):
            case "flip":
                content = content[:at] + bytes([draw(st.integers(0, 255))]) + content[at + 1 :]
            case "cut":
                content = content[:at]
            case "take":
                content = content[:at] + content[at + length :]
            case "put":
                piece = draw(st.sampled_from(PIECES) | st.binary(max_size=6))
                content = content[:at] + piece + content[at:]
            case "double":
                content = content[:at] + content[max(0, at - length) : at + length] + content[at:]
            case "move":
                rows = content.splitlines(keepends=True)
                content = b"".join(draw(st.permutations(rows))) if len(rows) < 40 else content
    return content


def files(names: list[str]):
    """(name, content): any bytes, or a valid file that was mutated."""
    one = st.sampled_from(names)
    return one.flatmap(
        lambda name: st.tuples(st.just(name), st.binary(max_size=200) | mutated(VALID[name].encode()))
    )


def outcome(read, *arguments):
    """What `read` gives; None where it raises an InputError, whose lines are short."""
    try:
        return read(*arguments)
    except InputError as error:
        assert str(error)
        assert all(len(line) < 1000 for line in str(error).split("\n"))
        return None


def physical_rows(name: str, content: bytes) -> int | None:
    """How many rows a file of lines holds, counted without reading them."""
    if name == "a.jsonl":
        text = content.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
        return sum(bool(line.strip()) for line in text.split("\n"))
    if name.startswith("d/"):
        return content.count(b"\n") + (not content.endswith(b"\n") and content != b"")
    return None


def check_reader(name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.parent.mkdir(exist_ok=True)
        for other in ("d/seq.in", "d/seq.out", "d/label") if name.startswith("d/") else ():
            (Path(folder) / other).write_text(VALID[other])
        path.write_bytes(content)
        if name == "texts":
            texts = outcome(lambda: list(read_texts(str(path))))
            if texts is not None:
                assert len(texts) == len(content.split(b"\n")) - (content.endswith(b"\n") or not content)
            return
        source = str(path.parent if name.startswith("d/") else path)
        reading = outcome(read_corpus, [source], "skip")
        if reading is None:
            return
        assert reading.rows == len(reading.examples) + len(reading.skipped)
        assert all(len(line) < 500 for line in [*reading.skipped, *reading.notices])
        if (rows := physical_rows(name, content)) is not None:
            assert reading.rows == rows
        for each in reading.examples:
            assert each.words
            assert all(0 <= start < end <= len(each.words) for start, end, _ in each.spans or ())
            json.dumps([each.words, each.label, each.text], ensure_ascii=False).encode()
        strict = outcome(read_corpus, [source])
        assert (strict is None) == bool(reading.skipped)


def check_words_of_conll(content: bytes) -> None:
    """Every line of a CoNLL file that holds a word is one word of an example, or stands in a skipped row."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.conll"
        path.write_bytes(content)
        reading = outcome(read_corpus, [str(path)], "skip")
        if reading is None or reading.skipped:
            return
        text = content.decode("utf-8", "surrogateescape").removeprefix("\ufeff")  # in columns not read
        rows = [
            line
            for line in text.split("\n")
            if line.strip() and not line.startswith("#") and not line.lstrip().startswith("-DOCSTART-")
        ]
        comments = text.count("#") + text.count("-DOCSTART-")
        words = sum(len(each.words) for each in reading.examples)
        assert len(rows) <= words <= len(rows) + comments


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS | st.sampled_from(["task_a", "cuda", "bf16", "a", 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def documents(draw) -> dict:
    """Values of any kind at keys that exist, and a few that don't."""
    document: dict = {}
    for key in draw(st.lists(st.sampled_from([*setting_keys(), "no.such.key", "training.lr"]), max_size=6)):
        *sections, name = key.split(".")
        inner = document
        for section in sections:
            if not isinstance(inner.get(section), dict):
                inner[section] = {}
            inner = inner[section]
        inner[name] = draw(VALUES)
    return document


def check_settings(content: bytes, overrides: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.yml"
        path.write_bytes(content)
        read = outcome(load_settings, path, overrides)
        assert read is None or isinstance(read, Settings)
        if read is not None:
            path.write_text(render_config(read), encoding="utf-8")
            assert load_settings(path) == read


CONFIGS = (
    st.binary(max_size=100)
    | mutated(render_config(Settings()).encode())
    | documents().map(
        lambda document: yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "replace")
    )
)
BAD_TEXT = st.text(st.characters(codec=None), max_size=20)
OVERRIDES = st.lists(
    st.tuples(st.sampled_from([*setting_keys()]) | BAD_TEXT, BAD_TEXT | VALUES.map(str)).map("=".join),
    max_size=3,
)


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory) -> Path:
    """A trained model's folder, whose config.json each example replaces."""
    folder = tmp_path_factory.mktemp("fuzzed") / "model"
    config = json.loads((tiny / "config.json").read_text())
    names = {"id2label": {0: "O", 1: "X"}, "label2id": {"O": 0, "X": 1}, "tag_scheme": "IO"}
    model = MultiTaskConfig(**{**config, **names, "classes": ["a", "b"], "max_length": 16, "stride": 4})
    save_model(MultiTaskTransformer(model), tiny, folder)
    (folder / CHECKSUMS).unlink()
    (folder / "valid.json").write_bytes((folder / "config.json").read_bytes())
    return folder


def check_model_config(folder: Path, data) -> None:
    valid = (folder / "valid.json").read_bytes()
    config = json.loads(valid)
    fields = st.sampled_from([*config, "num_labels", "auto_map", "per_layer_config", "quantization_config"])
    changed = st.dictionaries(fields, VALUES, max_size=2).map(
        lambda change: json.dumps({**config, **change}).encode()
    )
    (folder / "config.json").write_bytes(data.draw(st.binary(max_size=60) | mutated(valid) | changed))
    model = outcome(load_model, MultiTaskTransformer, folder)
    labels = None if model is None else outcome(labels_from_config, model.config)
    if labels is not None:
        sizes = len(model.sentence_classifier.bias), len(model.classifier.bias)
        assert not labels.classes or len(labels.classes) == sizes[0]
        assert not labels.types or len(labels.tags) == sizes[1]


LINES = ["a.jsonl", "a.conll", "a.csv", "a.tsv", "a.txt", "texts", "d/seq.in", "d/seq.out", "d/label"]


@tried(150)
@given(files(LINES))
@example(("a.conll", b"a O\n# label = x\nb O\n"))
@example(("a.csv", b'"text'))
def test_a_data_file_is_read_or_refused(file):
    check_reader(*file)


@exhaustive
@given(files(LINES))
def test_a_data_file_is_read_or_refused_exhaustively(file):
    check_reader(*file)


@tried(60)
@given(mutated(CONLL.encode()))
def test_no_word_of_a_conll_file_is_lost(content):
    check_words_of_conll(content)


@exhaustive
@given(mutated(CONLL.encode()))
def test_no_word_of_a_conll_file_is_lost_exhaustively(content):
    check_words_of_conll(content)


@tried(80)
@given(CONFIGS, OVERRIDES)
def test_settings_are_read_or_refused(content, overrides):
    check_settings(content, overrides)


@exhaustive
@given(CONFIGS, OVERRIDES)
def test_settings_are_read_or_refused_exhaustively(content, overrides):
    check_settings(content, overrides)


@tried(60)
@given(st.data())
def test_a_models_configuration_is_read_or_refused(trained, data):
    check_model_config(trained, data)


@exhaustive
@given(st.data())
def test_a_models_configuration_is_read_or_refused_exhaustively(trained, data):
    check_model_config(trained, data)
