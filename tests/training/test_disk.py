"""Runs on a full or read-only disk, or in a folder that another run uses."""

import re
import shutil
import subprocess

import pytest
from resuming import contents, resumed

from multitask.common.atomic_files import lock
from multitask.common.checksums import read_verified


@pytest.mark.parametrize("size", [0, 100, 3_000, 20_000, 60_000, 100_000])
def test_a_full_disk_gives_one_line_and_keeps_the_last_checkpoint(runs, stopped, whole, size):
    with_room(runs, stopped, whole, size)


@pytest.mark.exhaustive
def test_a_disk_that_is_full_at_any_point_gives_one_line(runs, killed, tmp_path, whole):
    largest = max(path.stat().st_size for path in (killed / "run").rglob("*") if path.is_file())
    for size in range(0, largest + 1000, 997):
        folder = shutil.copytree(killed, tmp_path / f"full-{size}")
        with_room(runs, folder, whole, size)
        shutil.rmtree(folder)


def with_room(runs, folder, whole, size):
    """Resume with files limited to `size` bytes, then without a limit."""
    outcome = runs(folder, "--resume", "run", largest_file=size)
    if outcome.status:
        assert outcome.status == 1
        assert re.search(r"error: File too large: \S+\n$", outcome.err) and "Traceback" not in outcome.err
    for path in (folder / "run/checkpoints").glob("step-*"):
        read_verified(path)
    assert not list(folder.glob("run/.*")) + list(folder.glob("run/checkpoints/.*"))
    assert resumed(runs, folder, []) == whole[0]


@pytest.fixture
def small_disk(tmp_path):
    """A folder on its own small file system."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_small_disk_that_fills_up_or_is_read_only(runs, killed, small_disk, whole):
    folder = shutil.copytree(killed, small_disk / "copy")
    free = shutil.disk_usage(folder).free
    filling = folder / "filling"
    for room in (150_000, 20_000, 0):
        filling.write_bytes(b"x" * (free - room))
        outcome = runs(folder, "--resume", "run")
        assert outcome.status == 1
        assert re.search(r"error: No space left on device: \S+\n$", outcome.err)
        filling.unlink()
        for path in (folder / "run/checkpoints").glob("step-*"):
            read_verified(path)
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(remount, check=True)
    before = contents(folder)
    outcome = runs(folder, "--resume", "run")
    assert (outcome.status, contents(folder)) == (1, before)
    assert re.search(r"error: Read-only file system: \S+\n$", outcome.err)
    subprocess.run([*remount[:-2], "remount,rw", str(small_disk)], check=True)
    assert resumed(runs, folder, []) == whole[0]


def test_a_second_run_in_a_folder_is_refused(runs, stopped):
    with lock(stopped / "run", ""):
        before = contents(stopped)
        outcome = runs(stopped, "--resume", "run")
        assert outcome.status == 2
        assert outcome.err.endswith("error: run: another process is training in it\n")
        assert contents(stopped) == before
    assert runs(stopped, "--resume", "run").status == 0
