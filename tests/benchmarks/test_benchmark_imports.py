"""The modules of benchmarks/ do not import each other in a circle, not even inside functions."""

import ast
from graphlib import TopologicalSorter

from conftest import ROOT

MODULES = {path.stem: path for path in (ROOT / "benchmarks").glob("*.py")}


def imported(tree: ast.AST) -> set[str]:
    """The modules of benchmarks/ that this code imports anywhere."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "benchmarks":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").removeprefix("benchmarks."))
        elif isinstance(node, ast.Import):
            names |= {alias.name.removeprefix("benchmarks.") for alias in node.names}
    return names & MODULES.keys()


def test_benchmarks_do_not_import_each_other_in_a_circle():
    graph = {name: imported(ast.parse(path.read_text(encoding="utf-8"))) for name, path in MODULES.items()}
    assert graph["joint"] >= {"study", "tables"}
    TopologicalSorter(graph).prepare()  # raises CycleError with the modules of a circle
