"""task_5.py export refuses invalid arguments and leaves files as they were."""

import re
import shutil

import pytest
from conftest import ROOT

import task_5
from multitask.common import errors


def content(folder) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["no/out"], "no/out: there is no folder no"),
        (["file"], "file: is a file; an export is a folder"),
        (["full"], "full: contains other files than an export; choose another name"),
        (["mixed"], "mixed: contains other files than an export"),
        (["."], ".: contains other files"),
        (["out", "--model", "nowhere"], "no folder nowhere"),
        (["out", "--model", "EXPORTED"], "is an export itself; --model must be a folder that training saved"),
        (["out", "--dev", "gone.jsonl"], "gone.jsonl: no such file"),
        (["out", "--dev", "bad.jsonl"], "bad.jsonl:1: not JSON"),
        (["earlier", "--dev", "earlier/README.md"], "earlier/README.md: is read too"),
        (["earlier", "--model", "earlier"], "is an export itself"),
    ],
)
def test_invalid_arguments_are_refused(exported, shell, tmp_path, arguments, reason):
    (tmp_path / "file").write_text("")
    (tmp_path / "bad.jsonl").write_text("{\n")
    for name, files in (("full", ["notes.txt"]), ("mixed", [*content(exported.folder), "notes.txt"])):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("")
    shutil.copytree(exported.folder, tmp_path / "earlier")
    before = content(tmp_path)
    words = [{"EXPORTED": exported.folder}.get(word, word) for word in arguments]
    ended = shell(task_5, "export", *words, *([] if "--model" in words else ["--model", exported.model]))
    assert ended.status == 2
    assert reason in ended.err and len(ended.err.splitlines()) == 1
    assert content(tmp_path) == before


def test_missing_packages_are_named(exported, shell, monkeypatch):
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name == "onnxscript" else name)
    ended = shell(task_5, "export", "out", "--model", exported.model)
    assert (ended.status, ended.err) == (
        2,
        "error: export needs onnxscript: pip install -r requirements-export.txt\n",
    )


def test_the_page_on_exports_installs_the_pinned_versions():
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    pinned = re.search(r"^pip install (numpy==.*)$", page, re.M)[1]
    files = [(ROOT / f"requirements{kind}.txt").read_text() for kind in ("", "-export")]
    required = re.findall(r"^([\w-]+==\S+)", "\n".join(files), re.M)
    assert set(pinned.split()) <= set(required) and len(pinned.split()) == 3
