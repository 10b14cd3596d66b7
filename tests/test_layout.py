"""Imports go one way, do nothing, and leave torch out where it is not needed."""

import ast
import subprocess
import sys

import pytest
from conftest import ROOT

ORDER = [
    {"errors", "words", "spelling", "dropout", "embedding_rows", "tensor_file", "strict_json", "predictions"},
    {"address", "yaml_input", "output", "labels", "model_folder", "hub", "embedding_files"},
    {"sealed", "colours", "page_guard"},
    {"settings", "rows", "array_store", "backbone", "checkpoint"},
    {
        "config_text",
        "optimization",
        "device",
        "lora",
        "loss_weighting",
        "formats",
        "subwords",
        "saving",
        "tracking",
    },
    {"config", "readers", "processes", "packing"},
    {"encoding", "interruption", "progress", "texts"},
    {"batching", "evaluation", "split"},
    {"features", "runner", "bootstrap", "quantization"},
    {"inference", "preparation", "onnx_model"},
    {"prediction", "model_card", "onnx_graph"},
    {"loading"},
    {"answers", "calibration", "export", "limits"},
    {"answer_file", "terminal", "confidence", "batcher", "dropped_file", "results"},
    {"answering", "originals", "pictures", "page", "slowest", "engine"},
    {"mistakes", "service", "highlight"},
    {"assessment", "neighbours", "metrics"},
    {"api", "result_view"},
    {"asking"},
    {"web_page"},
    {"web_server"},
    {"serving"},
    {"training", "resuming"},
    {"run_folder", "report"},
]
WITHOUT_TORCH = [
    "config",
    "labels",
    "readers",
    "encoding",
    "evaluation",
    "array_store",
    "split",
    "prediction",
    "loading",
    "assessment",
    "onnx_model",
]
MODULES = {path.stem for path in (ROOT / "multitask").glob("[a-z]*.py")}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def test_imports_go_one_way():
    level = {name: number for number, names in enumerate(ORDER) for name in names}
    assert level.keys() == MODULES
    for name in MODULES:
        for full in imported(ROOT / "multitask" / f"{name}.py"):
            top, _, rest = full.partition(".")
            assert top not in ("model", "benchmarks") and not top.startswith("task_"), (
                f"{name} imports {full}"
            )
            if top == "multitask":
                other = rest.split(".")[0]
                assert level[other] < level[name], f"{name} imports {other}"
    for path in ROOT.glob("*.py"):
        assert not any(full.startswith("task_") for full in imported(path)), f"{path.name} imports a task"


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_what_needs_no_torch_does_not_import_it(module):
    code = f"import sys, multitask.{module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_importing_everything_writes_and_says_nothing(tmp_path):
    names = [path.stem for path in ROOT.glob("*.py")] + [f"multitask.{name}" for name in MODULES]
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {', '.join(names)}"
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
