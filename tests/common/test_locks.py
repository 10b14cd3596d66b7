"""One process at a time, on systems with and without fcntl."""

import subprocess
import sys

import pytest
from conftest import ROOT

from multitask.common.atomic_files import lock, lock_file
from multitask.common.errors import InputError

# Windows has no fcntl. Without msvcrt, which it has, the library locks by a file that exists.
WITHOUT = """
import importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "fcntl":
            raise ModuleNotFoundError("No module named 'fcntl'", name=name)

sys.modules.pop("fcntl", None)
sys.meta_path.insert(0, Missing())
"""
HOLD = """
from pathlib import Path
from multitask.common.atomic_files import lock
held = lock(Path(sys.argv[1]), "busy")
print("held", flush=True)
sys.stdin.readline()
held.close()
"""


def start(code, *words, **how):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], cwd=ROOT, **pipes, **how)


@pytest.mark.parametrize("kind", ["folder", "file", "new file"])
def test_a_lock_is_held_by_one_process_until_it_ends(tmp_path, kind):
    path = tmp_path / "x"
    path.mkdir() if kind == "folder" else path.touch() if kind == "file" else None
    for end in ("released", "killed"):
        with start(f"import sys\n{HOLD}", path) as holder:
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(InputError, match="x: busy here"):
                lock(path, "busy here")
            holder.kill() if end == "killed" else holder.communicate("\n")
        assert lock_file(path).exists() == (end == "killed")
        with lock(path, "busy"):
            assert lock_file(path).exists()
        assert not lock_file(path).exists()


def test_a_lock_is_exclusive_without_fcntl(tmp_path):
    code = f"{WITHOUT}{HOLD}"
    with start(code, tmp_path) as holder:
        assert holder.stdout.readline() == "held\n", holder.communicate()
        second = start(code, tmp_path)
        out, err = second.communicate("\n")
        assert "InputError" in err and "busy" in err and out == ""
        holder.communicate("\n")
    third = start(code, tmp_path)
    assert third.communicate("\n")[0] == "held\n"


def test_all_scripts_start_without_fcntl(trained, tmp_path):
    """They are imported, and one of them writes a file that it locks."""
    names = [path.stem for path in sorted(ROOT.glob("task_*.py"))]
    words = f"sys.argv = ['', 'predict', 'anna', '--model', {str(trained)!r}, '--output', 'out.jsonl']"
    code = f"{WITHOUT}\nsys.path.insert(0, {str(ROOT)!r})\nimport {', '.join(names)}\n{words}\ntask_5.main()"
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.jsonl.finished.json", "out.jsonl"]
