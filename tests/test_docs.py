"""The commands of README.md and docs/, run in order in a copy of the project, as a newcomer would."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import ROOT

DOCS = (
    "tasks",
    "labelling",
    "data",
    "training",
    "distillation",
    "reliability",
    "results",
    "export",
    "serving",
    "cluster",
    "design",
    "troubleshooting",
)
PAGES = ("README.md", *(f"docs/{name}.md" for name in DOCS))
ALL_PAGES = (*PAGES, "task_3.md", "CONTRIBUTING.md", "CHANGELOG.md", "corpus/README.md")
NOT_RUN = ("pip install ", "python -m pytest")  # whoever runs this has just done both
# (what a block has, what it needs beside requirements-dev.txt): it is run where that is installed
NEEDS = (("--engine ray", "ray"), ("SparkSession", "pyspark"))
# three epochs are enough for the scores below
TUNED = "model.freeze_backbone=false training.learning_rate=1e-4"
SHORTER = f"{TUNED} training.num_epochs=3"
AUDIT = "task_5.py audit "  # two short trainings are enough to see that it runs
SERVER, ADDRESS = "python task_6.py", "http://127.0.0.1:7860"  # runs on while later commands run


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, code) of the blocks that are run."""
    found = re.findall(r"^```(sh|python)\n(.*?)^```$", read(page), re.DOTALL | re.MULTILINE)
    return [block for block in found if not any(name in block[1] and not is_here(it) for name, it in NEEDS)]


def is_here(package: str) -> bool:
    return find_spec(package) is not None and (package != "pyspark" or shutil.which("java") is not None)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project in which all commands have run."""
    folder = tmp_path_factory.mktemp("docs") / "project"
    ignored = shutil.ignore_patterns(".*", "runs", "cache", "evaluation", "__pycache__", "*.npy")
    shutil.copytree(ROOT, folder, ignore=ignored)
    shutil.copytree(ROOT / "multitask" / "evaluation", folder / "multitask" / "evaluation", ignore=ignored)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    how = {"cwd": folder, "env": environment, "text": True, "stdout": subprocess.PIPE}
    server, address = None, ADDRESS
    try:
        for page in PAGES:
            for language, block in blocks(page):
                lines = [line for line in block.splitlines() if not line.startswith((*NOT_RUN, SERVER))]
                if SERVER in block.splitlines():
                    server = subprocess.Popen([*SERVER.split(), "--port", "0"], **how)
                    address = server.stdout.readline().split()[1].rstrip("/")
                command = ["bash", "-euc"] if language == "sh" else [sys.executable, "-c"]
                code = "\n".join(lines).replace(ADDRESS, address).replace(TUNED, SHORTER)
                code = code.replace(AUDIT, f"{AUDIT}--folds 2 training.num_epochs=1 ")
                ended = subprocess.run([*command, code], stderr=subprocess.PIPE, **how)
                assert ended.returncode == 0, f"{page}\n{block}\n{ended.stdout}\n{ended.stderr}"
                with open(folder / "out", "a") as file:
                    file.write(ended.stdout)
    finally:
        if server:
            server.terminate()
    assert server.wait(20) == 0
    return folder


def metrics(project: Path) -> list[list[dict]]:
    """The metrics of all runs, in order."""
    runs = sorted(path for path in (project / "runs").iterdir() if not path.is_symlink())
    return [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in runs]


def test_the_default_run_learns(project):
    default = metrics(project)[0]
    assert default[-2]["loss"] < default[0]["loss"] / 2
    assert default[-1]["test"]["accuracy"] >= 0.90
    assert default[-1]["test"]["entity_f1"] >= 0.60


def test_the_fine_tuned_run_learns_both_tasks_well(project):
    tuned = metrics(project)[1]
    assert len(tuned) == 3 + 1
    assert tuned[-2]["loss"] < tuned[0]["loss"] / 5
    assert tuned[-1]["test"]["accuracy"] >= 0.90
    assert tuned[-1]["test"]["entity_f1"] >= 0.70
    assert tuned[-1]["test"]["exact_match"] >= 0.65


def test_the_commands_write_what_the_pages_say(project):
    assert np.load(project / "embeddings.npy").shape == np.load(project / "vectors.npy").shape == (2, 384)
    assert len((project / "predictions.jsonl").read_text().splitlines()) == 2
    assert (project / "exported" / "model.onnx").is_file()
    assert len(json.loads((project / "next.json").read_text())) == 20
    assert len((project / "next.jsonl").read_text().splitlines()) == 20
    assert json.loads((project / "doubtful.json").read_text())
    out = (project / "out").read_text()
    assert "train: 3 rows used" in out and "train: 7 rows used" in out
    assert "Token logits shape: torch.Size([2, " in out
    assert '"embeddings":[[' in out and '{"status":"ok","model":"runs/latest/model"' in out
    assert 'multitask_requests_total{path="/predict",status="200"} 1.0' in out
    # by tasks.md, by an export, and by the server
    assert out.count('{"text": "Is Apple opening an office in Lagos?", "label": "') == 3


def test_the_commands_of_large_inputs_write_the_rows(project):
    out = (project / "out").read_text()
    assert "predicted: 677 rows in 4 files; 1 could not be read" in out
    rows = pq.read_table(project / "predicted").to_pylist()
    assert len(rows) == 677 and sum(row["error"] is not None for row in rows) == 1


@pytest.mark.skipif(not is_here("ray"), reason="Ray is not installed: pip install -r requirements-ray.txt")
def test_the_commands_for_ray_write_the_same_files(project):
    names = [path.name for path in (project / "predicted").iterdir()]
    for name in names:
        assert (project / "by-ray" / name).read_bytes() == (project / "predicted" / name).read_bytes()


@pytest.mark.skipif(not is_here("pyspark"), reason="Spark, or Java, is not installed")
def test_the_lines_for_spark_print_predictions(project):
    assert re.search(r"\[\(1, '\w+', None\), \(2, None, '.+'\)\]", (project / "out").read_text())


def test_the_two_commands_stand_at_the_top_of_a_short_readme():
    lines = read("README.md").splitlines()
    assert len(lines) <= 220
    assert lines.index("pip install -r requirements.txt") < lines.index("python task_4.py") < 20


def test_every_script_is_shown():
    code = " ".join(block for page in PAGES for _, block in blocks(page))
    for command in ("task_1.py", "task_2.py", "task_4.py", "task_5.py predict", "task_5.py evaluate"):
        assert f"python {command}" in code
    assert "python task_5.py suggest" in code and "python task_5.py audit" in code
    assert "python task_5.py export" in code and "python task_6.py" in code and "python -m pytest" in code


def headings(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    lines = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", ALL_PAGES)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", read(page), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not target.startswith("http"):
            path, _, anchor = target.partition("#")
            file = (ROOT / page).parent / path if path else ROOT / page
            assert file.exists(), target
            assert not anchor or anchor in headings(file), target


@pytest.mark.parametrize("page", PAGES)
def test_the_readme_leads_to_every_page(page):
    assert page == "README.md" or f"]({page}" in read("README.md")


def test_every_answer_of_the_design_page_names_code_that_exists():
    answers = re.findall(r"`([\w/]+\.py)`: `(\w+)`", read("docs/design.md"))
    assert len(answers) >= 10
    for file, name in answers:
        path = ROOT / file if (ROOT / file).is_file() else ROOT / "multitask" / file
        tree = ast.parse(path.read_text(encoding="utf-8"))
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert name in defined, f"{file}: {name}"


def test_the_design_page_lists_every_package_and_modules_that_exist():
    rows = re.findall(r"^\| `(\w+)/` \| .*? \| (.*) \|$", read("docs/design.md"), re.MULTILINE)
    packages = {path.parent.name for path in (ROOT / "multitask").glob("*/__init__.py")}
    assert {package for package, _ in rows} == packages
    for package, modules in rows:
        for name in re.findall(r"`([\w/]+)`", modules):
            folder = ROOT / "multitask" / package
            assert (folder / f"{name.rstrip('/')}.py").is_file() or (folder / name).is_dir(), name
