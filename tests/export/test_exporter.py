"""task_5.py export: what it prints, writes and compares."""

import json
import re
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

import task_5
from model import MultiTaskTransformer
from multitask.data.labels import labels_from_config
from multitask.data.splits import read_split
from multitask.data.tokenization import WordTokenizer
from multitask.encoders.pretrained import load_tokenizer
from multitask.evaluation.evaluate import evaluate
from multitask.evaluation.metrics import Scores
from multitask.export import exporter as exporting
from multitask.export.exporter import compare_predictors, random_corpus
from multitask.inference.onnx_runner import CPU, CUDA, MODEL
from multitask.inference.predictor import Predictor


def content(folder) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.fixture
def graph_changes(exported, monkeypatch):
    """Functions that change an export's graph, which is read, since translating the model is slow."""
    changes = []

    def graph_of(model):
        graph = onnx.load(exported.folder / MODEL)
        for change in changes:
            change(graph)
        return graph

    monkeypatch.setattr(exporting, "export_graph", graph_of)
    return changes


def torch_predictor(exported) -> Predictor:
    model = MultiTaskTransformer.from_pretrained(exported.model)
    return Predictor(model, load_tokenizer(exported.model), labels_from_config(model.config), "fp32")


def figures(text: str) -> dict[str, list[float]]:
    lines = re.findall(r"^  (\w+) +(\S.*)$", text, re.M)
    return {name: [float(word) for word in words.split()] for name, words in lines}


def test_an_export_without_thresholds_does_not_mention_them(exported):
    assert "answer_only_if" not in (exported.folder / "README.md").read_text()


def test_export_prints_differences_and_scores_only(exported):
    assert (exported.ended.status, exported.ended.err) == (0, "")
    printed = figures(exported.ended.out)
    assert all(0 < printed[name][0] < 1e-4 for name in ("sentence_logits", "word_logits", "embeddings"))
    predictor = torch_predictor(exported)
    corpus = read_split([str(exported.rows)], WordTokenizer(predictor.tokenizer), 24, 6).corpus(
        predictor.labels
    )
    headline = evaluate(predictor.runner, corpus, predictor.labels).headline()
    assert headline["entity_f1"] is not None
    for name, value in headline.items():
        assert printed[name] == [round(value, 4)] * 2


def test_the_graph_names_no_files_of_this_machine(exported):
    graph = (exported.folder / MODEL).read_bytes()
    for word in (b"site-packages", b".py", b"stack_trace"):
        assert word not in graph


def test_predict_and_evaluate_take_an_export_like_a_model(exported, shell):
    for command in (["predict", "anna won in paris", ""], ["evaluate", exported.rows, "--json"]):
        one, two = (shell(task_5, *command, "--model", m) for m in (exported.model, exported.folder))
        assert (one.status, two.status, two.err) == (0, 0, one.err)
        for a, b in zip(one.out.splitlines(), two.out.splitlines(), strict=True):
            assert re.sub(r"[\d.]+", "", a) == re.sub(r"[\d.]+", "", b)
            numbers = (list(map(float, re.findall(r"\d+(?:\.\d+)?", line))) for line in (a, b))
            np.testing.assert_allclose(*numbers, atol=1e-4)


@pytest.mark.parametrize(
    ("device", "problem"),
    [
        ("cuda", "this onnxruntime runs on the CPU alone; onnxruntime-gpu in its place also runs on CUDA"),
        ("mps", "an exported model runs on cpu or cuda"),
    ],
)
def test_a_device_that_onnxruntime_lacks_is_refused(exported, shell, device, problem):
    ended = shell(task_5, "predict", "a", "--model", exported.folder, "--device", device)
    assert (ended.status, ended.err) == (2, f"error: --device {device}: {problem}\n")
    assert shell(task_5, "predict", "a", "--model", exported.folder, "--device", "auto").status == 0


def test_onnxruntime_that_falls_back_to_the_cpu_is_refused(exported, shell, monkeypatch):
    session, asked = onnxruntime.InferenceSession, []

    def without_gpu(file, options, providers, **how):
        asked.append(providers)
        return session(file, options, providers=providers[-1:], **how)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", without_gpu)
    ended = shell(task_5, "predict", "a", "--model", exported.folder, "--device", "cuda:1")
    assert (ended.status, ended.err) == (
        2,
        "error: --device cuda:1: onnxruntime can't use CUDA here; its log says why\n",
    )
    assert asked == [[(CUDA, {"device_id": 1}), CPU]]


def test_int8_replaces_an_earlier_export(exported, graph_changes, shell, tmp_path):
    (tmp_path / "out").mkdir()
    arguments = ("export", "out", "--model", exported.model, "--dev", exported.rows)
    assert shell(task_5, *arguments).status == 0
    assert content(tmp_path / "out") == content(exported.folder), "exports are deterministic"
    ended = shell(task_5, *arguments, "--int8")
    assert (ended.status, ended.err) == (0, "")
    assert all(1e-4 < figures(ended.out)[name][0] < 0.5 for name in ("word_logits", "embeddings"))
    assert json.loads((tmp_path / "out/labels.json").read_text())["weights"] == "int8"
    assert (tmp_path / "out" / MODEL).stat().st_size < (exported.folder / MODEL).stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_export_with_other_outputs_is_not_written(exported, graph_changes, shell, tmp_path):
    def bias(graph):
        tensor = next(t for t in graph.graph.initializer if t.name.endswith("sentence_classifier.bias"))
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(0.05), tensor.name)
        )

    arguments = ("export", "out", "--model", exported.model)
    assert shell(task_5, *arguments).status == 0
    before = content(tmp_path)
    graph_changes.append(bias)
    ended = shell(task_5, *arguments)
    assert ended.status == 2
    assert ended.err.splitlines()[-1].startswith(
        "error: nothing was written, since the exported model gives other outputs than torch: "
        "sentence_logits differ by up to 0.05, word_logits differ by up to "
    )
    assert content(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (None, "config.yml: no such file"),
        ("data:\n  dev: null\n", "config.yml: data.dev is null"),
        ("data:\n  dev: gone.jsonl\n", "gone.jsonl: no such file"),
        ("data: [\n", "config.yml:"),
    ],
)
def test_random_texts_replace_a_missing_dev_set(exported, graph_changes, shell, tmp_path, config, reason):
    shutil.copytree(exported.model, tmp_path / "run" / "model")
    if config:
        (tmp_path / "run" / "config.yml").write_text(config)
    ended = shell(task_5, "export", "out", "--model", "run/model")
    assert ended.status == 0
    (line,) = ended.err.splitlines()
    assert line.startswith("no dev set (") and reason in line
    assert list(figures(ended.out)) == ["sentence_logits", "word_logits", "embeddings"]


def test_random_texts_have_one_word_up_to_a_full_window(exported):
    predictor = torch_predictor(exported)
    one, two = random_corpus(predictor), random_corpus(predictor)
    np.testing.assert_array_equal(one.ids, two.ids)
    assert np.diff(one.word_rows).min() == 1
    assert one.window_lengths.max() == 24
    assert len(np.unique(one.ids)) > 80


def test_a_comparison_finds_the_largest_difference(exported):
    one, two = torch_predictor(exported), torch_predictor(exported)
    with torch.no_grad():
        two.runner.model.sentence_classifier.bias[1] -= 0.5
    comparison = compare_predictors(one, two, random_corpus(one))
    assert comparison.differences["word_logits"] == comparison.differences["embeddings"] == 0
    assert comparison.differences["sentence_logits"] == pytest.approx(0.5, abs=1e-4)
    assert comparison.scores == (Scores(None, None, None),) * 2
    with torch.no_grad():
        two.runner.model.sentence_classifier.bias[0] = torch.nan
    assert np.isnan(compare_predictors(one, two, random_corpus(one)).differences["sentence_logits"])
