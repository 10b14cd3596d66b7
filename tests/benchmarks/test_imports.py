"""The modules of benchmarks/ import each other in one direction."""

import ast
from graphlib import TopologicalSorter

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
