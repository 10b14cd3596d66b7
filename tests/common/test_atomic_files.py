import os
from pathlib import Path

import numpy as np
import pytest

from multitask.common import atomic_files
from multitask.common.array_cache import NpyWriter
from multitask.common.atomic_files import atomic_file, atomic_folder, check_writable
from multitask.common.errors import InputError


def test_a_file_is_complete_or_absent(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(RuntimeError), atomic_file(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as file:
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    with atomic_file(path) as file:
        file.write(b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"new")]


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_is_replaced_completely_or_not_at_all(tmp_path, monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(atomic_files, "exchange_folders", lambda *_: False)
    path = tmp_path / "model"
    for content, fails in (("one", False), ("two", True), ("three", False)):
        try:
            with atomic_folder(path) as folder:
                (folder / "x").write_text(content)
                if fails:
                    raise RuntimeError
        except RuntimeError:
            assert (path / "x").read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert (path / "x").read_text() == "three"


def test_a_folder_is_restored_if_its_replacement_can_not_be_renamed(tmp_path, monkeypatch):
    path = tmp_path / "model"
    path.mkdir()
    (path / "x").write_text("old")
    real = os.replace

    def rename(source, target):
        if Path(target) == path and not str(source).endswith(".replaced"):
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(atomic_files, "exchange_folders", lambda *_: False)
    monkeypatch.setattr(os, "replace", rename)
    with pytest.raises(KeyboardInterrupt), atomic_folder(path) as folder:
        (folder / "x").write_text("new")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert (path / "x").read_text() == "old"


def test_the_only_copy_of_a_folder_is_never_deleted(tmp_path, monkeypatch):
    path = tmp_path / "model"
    path.mkdir()
    (path / "x").write_text("old")
    real = os.replace

    def rename(source, target):
        if Path(target) == path:
            raise OSError
        real(source, target)

    monkeypatch.setattr(atomic_files, "exchange_folders", lambda *_: False)
    monkeypatch.setattr(os, "replace", rename)
    with pytest.raises(OSError), atomic_folder(path):
        pass
    assert [p.read_text() for p in tmp_path.rglob("x")] == ["old"]


def test_files_have_the_usual_permissions(tmp_path):
    with atomic_file(tmp_path / "file"), atomic_folder(tmp_path / "folder") as folder:
        (folder / "private").touch(mode=0o600)
    (tmp_path / "other").touch()
    usual = (tmp_path / "other").stat().st_mode
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "folder/private").stat().st_mode == usual


@pytest.mark.parametrize("name", ["nowhere/a.npy", "a.txt", "folder.npy"])
def test_names_that_can_not_become_files_are_refused(tmp_path, name):
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(InputError, match=name.split("/")[-1]):
        check_writable(tmp_path / name, ".npy")


@pytest.mark.parametrize("pieces", [[3], [1, 0, 4, 2], [120_000, 7]])
def test_numpy_reads_an_array_that_was_written_in_pieces(tmp_path, pieces):
    random = np.random.default_rng(0)
    arrays = [random.normal(size=(n, 5)).astype(np.float32) for n in pieces]
    with open(tmp_path / "a.npy", "wb") as file:
        writer = NpyWriter(file)
        for array in arrays:
            writer.write(array)
        writer.finish()
    read = np.load(tmp_path / "a.npy", mmap_mode="r")
    np.testing.assert_array_equal(read, np.concatenate(arrays))
