"""Folders with checksums: files in subfolders, and atomic updates of some of the files."""

import os
import shutil

import pytest

from multitask.common import atomic_files
from multitask.common.checksums import (
    CHECKSUMS,
    ChecksumError,
    read_verified,
    update_with_checksums,
    verify_checksums,
    write_with_checksums,
)

FILES = {"a.json": b"a" * 3000, "weights": bytes(5000), "1_Pooling/config.json": b"{}", "1_Pooling/b": b"b"}


@pytest.fixture
def folder(tmp_path):
    write_with_checksums(tmp_path / "folder", [(name, [content]) for name, content in FILES.items()])
    return tmp_path / "folder"


def test_a_file_in_a_subfolder_is_verified_like_any_other(folder):
    assert read_verified(folder) == FILES
    assert list(verify_checksums(folder)) == list(FILES)
    (folder / "1_Pooling/config.json").write_bytes(b"[]")
    for check in (read_verified, verify_checksums):
        with pytest.raises(ChecksumError, match="config.json is not what was written"):
            check(folder)


def replace_subfolder_by_link(folder):
    shutil.move(folder / "1_Pooling", folder.parent)
    (folder / "1_Pooling").symlink_to(folder.parent / "1_Pooling")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (replace_subfolder_by_link, "1_Pooling is a link"),
        (lambda folder: (folder / "1_Pooling/c").write_bytes(b""), "1_Pooling/c does not belong to it"),
        (lambda folder: (folder / "2_Dense").mkdir(), "2_Dense does not belong to it"),
        (lambda folder: shutil.rmtree(folder / "1_Pooling"), "config.json is missing"),
    ],
)
def test_a_damaged_subfolder_is_detected(folder, damage, reason):
    damage(folder)
    with pytest.raises(ChecksumError, match=reason):
        read_verified(folder)


@pytest.mark.parametrize("has_links", [True, False])
def test_an_update_replaces_some_files_and_keeps_the_others(folder, has_links, monkeypatch):
    if not has_links:
        monkeypatch.setattr(atomic_files.os, "link", lambda *_: os.unlink(folder / "no such file"))
    before = (folder / "weights").stat().st_ino
    update_with_checksums(folder, {"a.json": b"new", "README.md": b"card"})
    assert read_verified(folder) == {**FILES, "a.json": b"new", "README.md": b"card"}
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]
    assert ((folder / "weights").stat().st_ino == before) == has_links


def test_an_update_does_not_hide_earlier_damage(folder):
    (folder / "weights").write_bytes(bytes(4999) + b"x")
    update_with_checksums(folder, {"a.json": b"new"})
    with pytest.raises(ChecksumError, match="weights is not what was written"):
        verify_checksums(folder)
    (folder / CHECKSUMS).unlink()
    with pytest.raises(ChecksumError, match=f"no {CHECKSUMS}"):
        update_with_checksums(folder, {"a.json": b"newer"})
    assert (folder / "a.json").read_bytes() == b"new"


def test_a_failing_disk_leaves_the_folder_unchanged(folder, monkeypatch):
    real, kinds = atomic_files.disk, []

    def count(kind, *arguments):
        kinds.append(kind)
        return real(kind, *arguments)

    monkeypatch.setattr(atomic_files, "disk", count)
    update_with_checksums(folder, {"a.json": b"new"})
    assert kinds == ["link"] * 3 + ["write"] * 2 + ["sync"] * 7 + ["rename", "sync"]
    for last in range(len(kinds) - 1):
        left = iter(range(last))

        def fail(kind, *arguments, left=left):
            if next(left, None) is None and kind != "link":
                raise OSError(28, "No space left on device")
            return real(kind, *arguments)

        monkeypatch.setattr(atomic_files, "disk", fail)
        with pytest.raises(OSError, match="No space left"):
            update_with_checksums(folder, {"a.json": b"newer"})
        assert read_verified(folder) == {**FILES, "a.json": b"new"}
        assert [path.name for path in folder.parent.iterdir()] == ["folder"]
