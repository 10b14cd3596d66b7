"""Paths that can't be read, and links out of a folder: one line says why."""

import os
import shutil
from pathlib import Path

import pytest
from corpus_files import FILES, corpus_refusal, refusal
from reading import read_corpus

from multitask.data.texts import read_rows, read_texts


def test_pipes_devices_and_folders_are_refused(tmp_path):
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    for path in (pipe, "/dev/zero", "/dev/null"):
        assert corpus_refusal(str(path)) == f"{path}: is a pipe or a device, not a file"
    for path in (pipe, "/dev/zero", "/dev/null", tmp_path):
        assert refusal(read_texts, str(path)) == f"{path}: not a text file; - is standard input"


@pytest.mark.parametrize("reader", [corpus_refusal, lambda path: refusal(read_rows, path)])
def test_impossible_paths_are_refused(tmp_path, put, reader):
    loop, long = tmp_path / "loop.jsonl", tmp_path / ("x" * 300)
    loop.symlink_to(loop)
    inside_a_file = f"{put('a.jsonl', FILES['a.jsonl'])}/b.jsonl"
    for path in (loop, long, inside_a_file, f"{tmp_path}/\0.jsonl"):
        assert str(path) in reader(str(path))


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), FileNotFoundError(2, "No such file")]
)
@pytest.mark.parametrize("name", [*FILES, "a.txt", "d/seq.in"])
def test_file_that_can_not_be_opened_is_refused(put, monkeypatch, name, error):
    path = Path(put(name, FILES.get(name, "a\n")))

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr("builtins.open", refuse)
    path = str(path.parent if "/" in name else path)
    message = refusal(read_texts, path) if name == "a.txt" else corpus_refusal(path)
    assert message == f"{path}: {error.strerror.lower()}"


@pytest.mark.parametrize("target", ["secret", "../private/key", "/etc/hostname"])
@pytest.mark.parametrize("member", ["seq.in", "label"])
def test_links_out_of_a_folder_are_refused(tmp_path, put, target, member):
    secret = put("private/key", "my secret\n")
    put("d/seq.in", "a b\n")
    (tmp_path / "d" / member).unlink(missing_ok=True)
    (tmp_path / "d" / member).symlink_to(secret if target == "secret" else target)
    message = f"{tmp_path}/d/{member}: is a link that leads out of its folder; copy the file into it"
    assert corpus_refusal(str(tmp_path / "d")) == message


def test_links_inside_a_folder_and_to_a_folder_are_followed(tmp_path, put):
    folder = tmp_path / "d"
    put("d/seq.in", "a b\n")
    put("d/names", "x\n")
    (folder / "label").symlink_to("names")
    shutil.move(folder, tmp_path / "e")
    folder.symlink_to("e")
    assert [example.label for example in read_corpus([str(folder)]).examples] == ["x"]


@pytest.mark.parametrize("member", ["seq.in", "seq.out", "label"])
def test_members_of_a_folder_must_be_files(tmp_path, put, member):
    folder = str(Path(put("d/seq.in", "a\n")).parent)
    (tmp_path / "d" / member).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "d" / member)
    assert corpus_refusal(folder) == f"{folder}/{member}: is not a file"
