"""The package's structure: small modules, and imports without effects."""

import subprocess
import sys

from conftest import ROOT

MODULES = sorted((ROOT / "multitask").rglob("*.py"))
NAMES = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in MODULES]
WITHOUT_TORCH = [
    "multitask",
    "multitask.config.loading",
    "multitask.data.labels",
    "multitask.data.readers",
    "multitask.data.corpus",
    "multitask.data.splits",
    "multitask.common.array_cache",
    "multitask.common.distributed",
    "multitask.evaluation.metrics",
    "multitask.evaluation.evaluate",
    "multitask.inference.predictor",
    "multitask.inference.onnx_runner",
]


def run(code: str, **how) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **how)


def test_modules_that_need_no_torch_do_not_import_it():
    ended = run(f"import sys, {', '.join(WITHOUT_TORCH)}; sys.exit('torch' in sys.modules)", cwd=ROOT)
    assert ended.returncode == 0, ended.stderr


def test_the_predictor_is_imported_without_torch_and_transformers():
    heavy = "bool({'torch', 'transformers'} & {*sys.modules})"
    code = f"import sys; from multitask import Predictor; sys.exit({heavy})"
    assert run(code, cwd=ROOT).returncode == 0


def test_importing_everything_writes_and_prints_nothing(tmp_path):
    names = [path.stem for path in ROOT.glob("*.py")] + NAMES
    ended = run(f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {', '.join(names)}", cwd=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_no_script_imports_another_script_but_audit_the_training_loop():
    for path in ROOT.glob("task_*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name == "task_5.py":
            text = text.replace("    from task_4 import build, train  # the one training loop\n", "", 1)
        assert "import task_" not in text and "from task_" not in text, path.name


def test_packages_have_three_to_twelve_modules_and_modules_at_most_250_lines():
    assert [path.name for path in (ROOT / "multitask").glob("*.py")] == ["__init__.py"]
    for package in {path.parent for path in MODULES} - {ROOT / "multitask"}:
        modules = [path for path in package.glob("*.py") if path.name != "__init__.py"]
        assert 3 <= len(modules) <= 12, package
    for path in MODULES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 250, path
