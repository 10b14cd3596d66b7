"""The modules of benchmarks/ import each other in one direction, and find the project wherever they start."""

import ast
import runpy
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT


def imports_of(path, names):
    """The modules of benchmarks/ that a module imports anywhere, also inside a function."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if f"benchmarks.{name}" in imported}


def test_no_benchmark_imports_itself_through_others():
    paths = {path.stem: path for path in (ROOT / "benchmarks").glob("*.py")}
    graph = {name: imports_of(path, paths) for name, path in paths.items()}
    assert "study" in graph["joint"]
    TopologicalSorter(graph).prepare()  # a circle is a CycleError, which names its modules


@pytest.fixture
def unloaded():
    """Forget the loaded modules of benchmarks/, now and at each call; restore the first ones at the end."""

    def forget():
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("benchmarks")}

    before = forget()
    yield forget
    forget()
    sys.modules |= before


def test_every_script_finds_the_project_from_any_folder(tmp_path, monkeypatch, unloaded):
    monkeypatch.chdir(tmp_path)
    others = [folder for folder in sys.path if Path(folder).resolve() not in (ROOT, ROOT / "tests")]
    paths = sorted((ROOT / "benchmarks").glob("*.py"))
    scripts = [path for path in paths if f"python benchmarks/{path.name}" in path.read_text(encoding="utf-8")]
    assert len(scripts) >= 15
    for script in scripts:
        unloaded()
        monkeypatch.setattr(sys, "path", [str(script.parent), *others])  # as Python sets it
        runpy.run_path(str(script))
