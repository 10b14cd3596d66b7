"""The README's commands, run in order in a copy of the project, as a newcomer would."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
NOT_RUN = ("pip install ", "python -m pytest")  # whoever runs this has just done both
SERVER, ADDRESS = "python task_6.py", "http://127.0.0.1:7860"  # goes on while the commands behind it run


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project in which all commands have run."""
    folder = tmp_path_factory.mktemp("readme") / "project"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "runs", "__pycache__", "*.npy"))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    how = {"cwd": folder, "env": environment, "text": True, "stdout": subprocess.PIPE}
    server, address = None, ADDRESS
    for language, block in BLOCKS:
        lines = [line for line in block.splitlines() if not line.startswith((*NOT_RUN, SERVER))]
        if SERVER in block.splitlines():
            server = subprocess.Popen([*SERVER.split(), "--port", "0"], **how)
            address = server.stdout.readline().split()[1].rstrip("/")
        command = ["bash", "-euc"] if language == "sh" else [sys.executable, "-c"]
        code = "\n".join(lines).replace(ADDRESS, address)
        ended = subprocess.run([*command, code], stderr=subprocess.PIPE, **how)
        assert ended.returncode == 0, f"{block}\n{ended.stdout}\n{ended.stderr}"
        with open(folder / "out", "a") as file:
            file.write(ended.stdout)
    server.terminate()
    assert server.wait(20) == 0
    return folder


def metrics(project: Path) -> list[list[dict]]:
    """Of all runs, in order."""
    runs = sorted(path for path in (project / "runs").iterdir() if not path.is_symlink())
    return [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in runs]


def test_the_default_run_learns(project):
    default = metrics(project)[0]
    assert default[-2]["loss"] < default[0]["loss"] / 2
    assert default[-1]["test"]["accuracy"] >= 0.85


def test_the_fine_tuned_run_learns_both_tasks_well(project):
    tuned = metrics(project)[1]
    assert tuned[-2]["loss"] < tuned[0]["loss"] / 5
    assert tuned[-1]["test"]["accuracy"] >= 0.90
    assert tuned[-1]["test"]["entity_f1"] >= 0.75
    assert tuned[-1]["test"]["exact_match"] >= 0.65


def test_the_commands_wrote_what_they_say(project):
    assert np.load(project / "embeddings.npy").shape == np.load(project / "vectors.npy").shape == (2, 384)
    assert len((project / "predictions.jsonl").read_text().splitlines()) == 2
    out = (project / "out").read_text()
    assert "train: 7 rows used" in out
    assert "Token logits shape: torch.Size([2, " in out
    assert '"embeddings":[[' in out and '{"status":"ok","model":"runs/latest/model"' in out
    assert 'multitask_requests_total{path="/predict",status="200"} 1.0' in out
    assert out.count('\n{"text": "Is Apple opening an office in Lagos?", "label": "') == 2  # task 5's and 6's


def test_every_command_that_is_promised_is_shown():
    shown = " ".join(block for _, block in BLOCKS)
    for command in (
        "task_1.py",
        "task_2.py",
        "task_4.py",
        "task_5.py predict",
        "task_5.py evaluate",
        "task_6.py",
        "-m pytest",
    ):
        assert f"python {command}" in shown


@pytest.mark.parametrize("page", ["README.md", "task_3.md", "corpus/README.md"])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)  # [Oslo](LOC) is no link there
    headings = {
        re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", README, re.M)
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not target.startswith("http"):
            path, _, anchor = target.partition("#")
            assert ((ROOT / page).parent / path).exists(), target
            assert not anchor or anchor in headings, target
