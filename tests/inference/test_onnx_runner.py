"""An export gives the outputs of the torch model that it was made from, also without torch."""

import ast
import json
import os
import re
import subprocess
import sys
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import ROOT
from model_folders import EXPORTED_LABELS

from model import MultiTaskTransformer
from multitask.common.checksums import write_with_checksums
from multitask.data.corpus import encode
from multitask.data.examples import example_from_text
from multitask.data.labels import labels_from_config
from multitask.encoders.pretrained import load_tokenizer
from multitask.export import onnx_graph
from multitask.export.exporter import export, export_files
from multitask.inference.decoding import predict_corpus
from multitask.inference.onnx_runner import LABELS, MODEL, OnnxModel, read_labels
from multitask.inference.predictor import Predictor
from multitask.inference.runner import run_model

TEXTS = ["anna won in paris", "", "the vote", "a " * 90 + "end", "Paris, anna and the match!", "chip"]
BLOCKS = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
RUNTIME = ("numpy", "numpy.libs", "tokenizers", "onnxruntime", "flatbuffers", "google", "packaging")
RUNTIME += ("tqdm", "filelock")  # which tokenizers brings
WITHOUT = """
import json, sys
for name in ("torch", "transformers", "pydantic", "onnx"):
    try:
        __import__(name)
    except ImportError:
        continue
    sys.exit(f"{name} is installed")
from multitask import Predictor
predictions = Predictor.from_onnx(sys.argv[1]).predict(json.loads(sys.argv[2]), embeddings=True)
print(json.dumps([{**row.to_dict(), "raw": row.probabilities} for row in predictions]))
"""


@pytest.fixture(scope="module")
def predictor(exported):
    assert exported.ended.status == 0, exported.ended.err
    model = MultiTaskTransformer.from_pretrained(exported.model)
    return Predictor(model, load_tokenizer(exported.model), labels_from_config(model.config), "fp32")


@pytest.fixture(scope="module")
def int8(exported, predictor, tmp_path_factory) -> Path:
    """The same model, exported in int8."""
    folder = tmp_path_factory.mktemp("int8") / "out"
    with pytest.MonkeyPatch.context() as patch:  # reuse the graph, since translation is slow
        graph = onnx.load(exported.folder / MODEL)
        patch.setattr("multitask.export.exporter.export_graph", lambda model: graph)
        export(predictor, folder, int8=True)
    return folder


@pytest.fixture(params=["float32", "int8"])
def made(request, exported, predictor, int8):
    """A Predictor with torch, an export of its model, and the tolerance for differences between both."""
    return (predictor, exported.folder, 1e-4) if request.param == "float32" else (predictor, int8, 0.2)


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """A Python with only the packages that an exported model needs."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    source, target = (
        Path(p) / "lib" / f"python3.{sys.version_info[1]}" / "site-packages" for p in (sys.prefix, folder)
    )
    for name in RUNTIME:
        if (source / name).exists():
            (target / name).symlink_to(source / name)
    return folder / "bin" / "python"


def test_the_graph_takes_any_number_of_texts_of_any_length(made):
    predictor, folder, tolerance = made
    model, session = predictor.runner.model.eval(), OnnxModel(folder).session
    random = torch.Generator().manual_seed(0)
    for B, T in ((1, 1), (1, 3), (1, 64), (2, 2), (7, 24), (33, 5)):
        ids = torch.randint(5, model.config.vocab_size, (B, T), generator=random)
        mask = (torch.arange(T) < torch.randint(1, T + 1, (B, 1), generator=random)).long()
        mask[0] = 1
        with torch.no_grad():
            states = model.states(ids, mask)
            expected = *model.heads(states, mask), model.pool(states[-1], mask)
        outputs = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        for one, two in zip(outputs, expected):
            np.testing.assert_allclose(one, two, atol=tolerance)


def test_it_predicts_the_same_without_torch(made, bare):
    predictor, folder, tolerance = made
    command = [bare, "-c", WITHOUT, folder, json.dumps(TEXTS)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    expected, actual = predictor.predict(TEXTS, embeddings=True), json.loads(ended.stdout)
    assert any(row.entities for row in expected)
    for one, two in zip(expected, actual, strict=True):
        assert one.text == two["text"]
        np.testing.assert_allclose(two["embedding"], one.embedding, atol=tolerance)
        if tolerance == 1e-4:
            assert one.label == two["label"]
            assert two["raw"] == pytest.approx(one.probabilities, abs=1e-4)
            assert [e[:4] for e in one.entities] == [
                (e["start"], e["end"], e["text"], e["label"]) for e in two["entities"]
            ]
            assert [e["score"] for e in two["entities"]] == pytest.approx(
                [e.score for e in one.entities], abs=1e-4
            )


def test_the_predict_command_runs_without_torch(made, bare, tmp_path):
    predictor, folder, tolerance = made
    (tmp_path / "in.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    command = [bare, ROOT / "task_5.py", "predict", "--model", folder, "--input", "in.txt"]
    files = ["--output", "out.jsonl", "--embeddings", "e.npy"]
    ended = subprocess.run([*command, *files], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    expected = predictor.predict(TEXTS, embeddings=True)
    lines = (tmp_path / "out.jsonl").read_bytes().split(b"\n")
    assert [json.loads(line)["text"] for line in lines[:-1]] == TEXTS
    np.testing.assert_allclose(
        np.load(tmp_path / "e.npy"), [row.embedding for row in expected], atol=tolerance
    )


def best_tags(folder, text) -> list[tuple[str, str]]:
    """The first subwords of a text's words, and the sequence of their tags with the highest sum."""
    model, labels = OnnxModel(folder), json.loads((folder / LABELS).read_text())
    encoded = model.tokenizer().encode(text)
    ids = np.array([encoded.ids])
    scores = model.session.run(["token_logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0][
        0
    ]
    words = [i for i, word in enumerate(encoded.word_ids) if word is not None]
    words = [i for i in words if encoded.word_ids[i] != encoded.word_ids[i - 1]]

    def total(tags):
        return sum(scores[i, tag] for i, tag in zip(words, tags)) + sum(
            labels["transitions"][tag][following] for tag, following in pairwise(tags)
        )

    tags = max(product(range(len(labels["tags"])), repeat=len(words)), key=total)
    return [(encoded.tokens[i], labels["tags"][tag]) for i, tag in zip(words, tags)]


def test_the_code_in_an_exports_readme_runs(made, bare):
    predictor, folder, _ = made
    blocks = BLOCKS.findall((folder / "README.md").read_text(encoding="utf-8"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = [
        subprocess.run([bare, "-c", block], cwd=folder, env=environment, capture_output=True, text=True)
        for block in blocks
    ]
    assert [(ended.returncode, ended.stderr) for ended in ran] == [(0, "")] * 2
    (expected,) = Predictor.from_onnx(folder).predict(["Marit Solheim won in Oslo."])
    assert ran[0].stdout == f"{expected.label} {expected.entities}\n"
    assert ran[1].stdout.splitlines()[0] == expected.label
    assert ast.literal_eval(ran[1].stdout.splitlines()[1]) == best_tags(folder, "Marit Solheim won in Oslo.")


def test_outputs_do_not_depend_on_other_texts_or_threads(made):
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


def test_an_export_decodes_to_the_same_predictions(made):
    predictor, folder, tolerance = made
    corpus = encode(list(map(example_from_text, TEXTS)), predictor.tokenizer, predictor.labels, 24, 6)
    both = [
        predict_corpus(runner, corpus, predictor.labels) for runner in (predictor.runner, OnnxModel(folder))
    ]
    if tolerance == 1e-4:
        for one, two in zip(*both):
            np.testing.assert_array_equal(one, two)


def test_weights_too_large_for_one_file_get_a_second_one(exported, predictor, tmp_path, monkeypatch):
    folder = exported.folder
    monkeypatch.setattr("multitask.export.exporter.export_graph", lambda model: onnx.load(folder / MODEL))
    monkeypatch.setattr(onnx_graph, "ONE_FILE", 10_000)
    monkeypatch.setattr(onnx_graph, "SMALL", 100)  # some tensors then end in the middle of a page
    write_with_checksums(tmp_path / "two", export_files(predictor, int8=False))
    assert (tmp_path / "two" / MODEL).stat().st_size < (folder / MODEL).stat().st_size / 2
    assert (tmp_path / "two" / onnx_graph.DATA).stat().st_size > 10_000
    one, two = (Predictor.from_onnx(f).predict(TEXTS, embeddings=True) for f in (folder, tmp_path / "two"))
    assert repr(one) == repr(two)


def test_labels_json_has_all_that_prediction_needs(made):
    predictor, folder, tolerance = made
    values = json.loads((folder / LABELS).read_text())
    assert values.pop("vocab_size") == predictor.config.vocab_size
    other = {} if tolerance == 1e-4 else {"weights": "int8"}
    np.testing.assert_allclose(values.pop("transitions"), predictor.runner.model.transitions().detach())
    assert values == EXPORTED_LABELS | other
    config = read_labels(folder / LABELS)
    assert (config.num_labels, config.id2label) == (5, predictor.config.id2label)
