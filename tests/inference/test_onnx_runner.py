"""An exported folder against the torch model that it was made from, without torch too."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import ROOT

from model import MultiTaskTransformer
from multitask.common.checksums import CHECKSUMS, write_with_checksums
from multitask.common.errors import InputError
from multitask.data.corpus import encode
from multitask.data.labels import labels_from_config
from multitask.data.rows import example_from_text
from multitask.encoders.pretrained import load_tokenizer
from multitask.export import onnx_graph
from multitask.export.exporter import _files, export
from multitask.inference.decoding import predict_corpus
from multitask.inference.onnx_runner import LABELS, MODEL, OnnxModel, read_labels
from multitask.inference.predictor import Predictor
from multitask.inference.runner import run_model

TEXTS = ["anna won in paris", "", "the vote", "a " * 90 + "end", "Paris, anna and the match!", "chip"]
BLOCKS = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
RUNTIME = ("numpy", "numpy.libs", "tokenizers", "onnxruntime", "flatbuffers", "google", "packaging", "tqdm")
WITHOUT = """
import json, sys
for name in ("torch", "transformers", "pydantic", "onnx"):
    try:
        __import__(name)
    except ImportError:
        continue
    sys.exit(f"there is {name}")
from multitask.inference.predictor import Predictor
found = Predictor.from_onnx(sys.argv[1]).predict(json.loads(sys.argv[2]), embeddings=True)
print(json.dumps([{**row.to_dict(), "raw": row.probabilities} for row in found]))
"""


@pytest.fixture(scope="module")
def predictor(exported):
    assert exported.ended.status == 0, exported.ended.err
    model = MultiTaskTransformer.from_pretrained(exported.model)
    return Predictor(model, load_tokenizer(exported.model), labels_from_config(model.config), "fp32")


@pytest.fixture(scope="module")
def int8(exported, predictor, tmp_path_factory) -> Path:
    """The same model, exported with products in int8."""
    folder = tmp_path_factory.mktemp("int8") / "out"
    with pytest.MonkeyPatch.context() as patch:  # translating it once is slow enough
        graph = onnx.load(exported.folder / MODEL)
        patch.setattr("multitask.export.exporter.export_graph", lambda model: graph)
        export(predictor, folder, int8=True)
    return folder


@pytest.fixture(params=["float32", "int8"])
def made(request, exported, predictor, int8):
    """A Predictor with torch, an export of its model, and how far both may be from each other."""
    return (predictor, exported.folder, 1e-4) if request.param == "float32" else (predictor, int8, 0.2)


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """A Python with what an exported model needs, and no more."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    source, target = (
        Path(p) / "lib" / f"python3.{sys.version_info[1]}" / "site-packages" for p in (sys.prefix, folder)
    )
    for name in RUNTIME:
        if (source / name).exists():
            (target / name).symlink_to(source / name)
    return folder / "bin" / "python"


def sealed_again(folder: Path, target: Path, **changed: bytes) -> Path:
    """A copy of an export with other contents of files, whose sums are right."""
    files = {f.name: f.read_bytes() for f in folder.iterdir() if f.name != CHECKSUMS} | changed
    write_with_checksums(target, ((name, [content]) for name, content in files.items()))
    return target


def test_the_graph_takes_any_number_of_texts_of_any_length(made):
    predictor, folder, near = made
    model, session = predictor.runner.model.eval(), OnnxModel(folder).session
    random = torch.Generator().manual_seed(0)
    for B, T in ((1, 1), (1, 3), (1, 64), (2, 2), (7, 24), (33, 5)):
        ids = torch.randint(5, model.config.vocab_size, (B, T), generator=random)
        mask = (torch.arange(T) < torch.randint(1, T + 1, (B, 1), generator=random)).long()
        mask[0] = 1
        with torch.no_grad():
            hidden = model.encode(ids, mask)
            wanted = *model.heads(hidden, mask), model.pool(hidden, mask)
        found = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        for one, two in zip(found, wanted):
            np.testing.assert_allclose(one, two, atol=near)


def test_it_predicts_the_same_without_torch(made, bare):
    predictor, folder, near = made
    command = [bare, "-c", WITHOUT, folder, json.dumps(TEXTS)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    wanted, found = predictor.predict(TEXTS, embeddings=True), json.loads(ended.stdout)
    assert any(row.entities for row in wanted)
    for one, two in zip(wanted, found, strict=True):
        assert one.text == two["text"]
        np.testing.assert_allclose(two["embedding"], one.embedding, atol=near)
        if near == 1e-4:
            assert one.label == two["label"]
            assert two["raw"] == pytest.approx(one.probabilities, abs=1e-4)
            assert [e[:4] for e in one.entities] == [
                (e["start"], e["end"], e["text"], e["label"]) for e in two["entities"]
            ]
            assert [e["score"] for e in two["entities"]] == pytest.approx(
                [e.score for e in one.entities], abs=1e-4
            )


def test_the_command_answers_without_torch(made, bare, tmp_path):
    predictor, folder, near = made
    (tmp_path / "in.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    command = [bare, ROOT / "task_5.py", "predict", "--model", folder, "--input", "in.txt"]
    files = ["--output", "out.jsonl", "--embeddings", "e.npy"]
    ended = subprocess.run([*command, *files], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    wanted = predictor.predict(TEXTS, embeddings=True)
    lines = (tmp_path / "out.jsonl").read_bytes().split(b"\n")
    assert [json.loads(line)["text"] for line in lines[:-1]] == TEXTS
    np.testing.assert_allclose(np.load(tmp_path / "e.npy"), [row.embedding for row in wanted], atol=near)


def test_the_readme_of_an_export_runs_as_it_stands(made, bare):
    predictor, folder, _ = made
    blocks = BLOCKS.findall((folder / "README.md").read_text(encoding="utf-8"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = [
        subprocess.run([bare, "-c", block], cwd=folder, env=environment, capture_output=True, text=True)
        for block in blocks
    ]
    assert [(ended.returncode, ended.stderr) for ended in ran] == [(0, "")] * 2
    (wanted,) = Predictor.from_onnx(folder).predict(["Marit Solheim won in Oslo."])
    assert ran[0].stdout == f"{wanted.label} {wanted.entities}\n"
    assert ran[1].stdout.splitlines()[0] == wanted.label
    assert ran[1].stdout.splitlines()[1].startswith("[('[CLS]', '")


def test_neighbours_and_threads_change_nothing(made):
    predictor, folder, _ = made
    model = OnnxModel(folder, threads=3)
    model.batch_tokens = 40
    config, examples = model.config, list(map(example_from_text, TEXTS * 3))

    def run(examples, runner):
        corpus = encode(examples, predictor.tokenizer, predictor.labels, config.max_length, config.stride)
        (out,) = run_model(runner, corpus)
        return out

    small, whole = run(examples, model), run(examples, OnnxModel(folder, threads=1))
    np.testing.assert_allclose(small.word_logits, whole.word_logits, atol=1e-4)
    for row, example in enumerate(examples):
        alone = run([example], model)
        np.testing.assert_allclose(alone.sentence_logits[0], whole.sentence_logits[row], atol=1e-4)
        np.testing.assert_allclose(alone.embeddings[0], whole.embeddings[row], atol=1e-4)


def test_a_runner_is_evaluated_like_a_model(made):
    predictor, folder, near = made
    corpus = encode(list(map(example_from_text, TEXTS)), predictor.tokenizer, predictor.labels, 24, 6)
    both = [
        predict_corpus(runner, corpus, predictor.labels) for runner in (predictor.runner, OnnxModel(folder))
    ]
    if near == 1e-4:
        for one, two in zip(*both):
            np.testing.assert_array_equal(one, two)


def test_weights_that_one_file_can_not_hold_have_a_second_one(exported, predictor, tmp_path, monkeypatch):
    folder = exported.folder
    monkeypatch.setattr("multitask.export.exporter.export_graph", lambda model: onnx.load(folder / MODEL))
    monkeypatch.setattr(onnx_graph, "_LIMIT", 10_000)
    monkeypatch.setattr(onnx_graph, "_SMALL", 100)  # tensors that end in a page's middle too
    write_with_checksums(tmp_path / "two", _files(predictor, int8=False))
    assert (tmp_path / "two" / MODEL).stat().st_size < (folder / MODEL).stat().st_size / 2
    assert (tmp_path / "two" / onnx_graph.DATA).stat().st_size > 10_000
    one, two = (Predictor.from_onnx(f).predict(TEXTS, embeddings=True) for f in (folder, tmp_path / "two"))
    assert repr(one) == repr(two)


def test_a_bit_that_is_another_is_seen(exported, tmp_path):
    folder = exported.folder
    sealed_again(folder, tmp_path / "other")
    content = bytearray((folder / MODEL).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "other" / MODEL).write_bytes(content)
    with pytest.raises(InputError, match="model.onnx is not what was written; export the model again"):
        OnnxModel(tmp_path / "other")


LABELS_OF_MADE = {
    "classes": ["politics", "sports"],
    "tags": ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"],
    "tag_scheme": "BIO",
    "pooling": "mean",
    "max_length": 24,
    "stride": 6,
    "temperature_task_a": 2.5,
    "temperature_task_b": 0.5,
    "hidden_size": 32,
    "weights": "float32",
}


def test_labels_hold_all_that_prediction_repeats(made):
    predictor, folder, near = made
    values = json.loads((folder / LABELS).read_text())
    assert values.pop("vocab_size") == predictor.config.vocab_size
    other = {} if near == 1e-4 else {"weights": "int8"}
    assert values == LABELS_OF_MADE | other
    config = read_labels(folder / LABELS)
    assert (config.num_labels, config.id2label) == (5, predictor.config.id2label)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"classes": "xyz"}, "classes: is not a list of different names, or null"),
        ({"classes": ["x", "x"]}, "classes: is not"),
        ({"tags": []}, "tags: is not a list of different names"),
        ({"tags": [["O"]]}, "tags: is not"),
        ({"tag_scheme": "BIOES"}, "tag_scheme: is not one of IO, BIO, null"),
        ({"pooling": ["cls"]}, "pooling: is not one of cls, mean"),
        ({"max_length": 3}, "max_length: is not a whole number from 4"),
        ({"stride": True}, "stride: is not a whole number from 0"),
        ({"max_length": 8}, "stride: 6, but it is below 6"),
        ({"stride": -1}, "stride: is not a whole number from 0"),
        ({"temperature_task_a": 0}, "temperature_task_a: is not a finite number above 0"),
        ({"temperature_task_b": float("nan")}, "temperature_task_b: is not"),
        ({"temperature_task_b": float("inf")}, "temperature_task_b: is not"),
        ({"weights": "int4"}, "weights: is not one of float32, int8"),
        ({"hidden": 3}, "hidden: unknown key"),
        ({"vocab_size": ...}, "vocab_size: is missing"),
    ],
)
def test_labels_that_can_not_be_are_refused(tmp_path, changed, reason):
    values = {**LABELS_OF_MADE, "vocab_size": 100, **changed}
    values = {name: value for name, value in values.items() if value is not ...}
    (tmp_path / LABELS).write_text(json.dumps(values))
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / LABELS}: {reason}")) as error:
        read_labels(tmp_path / LABELS)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[]", "not a JSON object"),
        (b"{", "not a JSON object"),
        (b"\xff", "not a JSON object"),
        (b'{"a": 1, "a": 2}', "twice"),
    ],
)
def test_what_is_no_labels_file_is_refused(tmp_path, content, reason):
    (tmp_path / LABELS).write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_labels(tmp_path / LABELS)


def test_parts_that_do_not_fit_are_refused(exported, tmp_path):
    folder = exported.folder
    values = json.loads((folder / LABELS).read_text())
    for number, (changed, reason) in enumerate(
        [
            ({LABELS: {**values, "classes": ["x"]}}, "sentence_logits has 2 columns; labels.json is for 1"),
            ({LABELS: {**values, "tags": ["O", "B-A", "I-A"]}}, "token_logits has 5 columns"),
            ({LABELS: {**values, "hidden_size": 8}}, "embeddings has 32 columns"),
            ({LABELS: {**values, "vocab_size": 50}}, "tokenizer.json: gives ids up to"),
            ({LABELS: {**values, "tags": ["O", "B-A", "B-B", "I-A", "I-B"]}}, "labels can't be used"),
            ({MODEL: b"none"}, "model.onnx: can't be loaded"),
            ({"tokenizer.json": b"{}"}, "tokenizer.json: "),
        ]
    ):
        written = {n: v if isinstance(v, bytes) else json.dumps(v).encode() for n, v in changed.items()}
        with pytest.raises(InputError, match=reason) as error:
            Predictor.from_onnx(sealed_again(folder, tmp_path / str(number), **written))
        assert len(str(error.value).splitlines()) == 1


def test_without_onnxruntime_a_line_says_what_to_install(exported, monkeypatch):
    folder = exported.folder
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="pip install -r requirements-export.txt"):
        OnnxModel(folder)
