"""Uploads: each has a place of its own, there is a limit to them, and nothing is left of them."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from benchmarks.odd_requests import upload
from multitask.serving.launch import upload_folder
from multitask.serving.limits import Limits
from multitask.serving.page.upload_folder import Uploads

LIMITS = Limits(file_bytes=1_000, files=3, files_bytes=2_500)


def send(uploads, *requests) -> list[httpx.Response]:
    """The responses to (content, name), or to the bytes of whole requests."""

    async def main():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(uploads), base_url="http://x") as client:
            found = []
            for one in requests:
                head, _, body = (one if isinstance(one, bytes) else upload(*one)).partition(b"\r\n\r\n")
                lines = head.decode().split("\r\n")[1:]
                headers = dict(line.split(": ", 1) for line in lines)
                found.append(await client.post("/", content=body, headers=headers))
            return found

    return asyncio.run(main())


@pytest.fixture
def uploads(tmp_path):
    return Uploads(str(tmp_path / "private"), LIMITS)


def test_the_same_file_of_two_people_is_kept_twice_and_privately(uploads, tmp_path):
    content = b"anna won\r\n--a-boundar\n\0\xff" * 20
    first, second = (answer.json() for answer in send(uploads, *[(content, "rows.txt")] * 2))
    assert len(first) == len(second) == 1 and first != second
    for (path,) in (first, second):
        assert uploads.holds(path) and Path(path).read_bytes() == content and Path(path).name == "rows.txt"
        assert Path(path).parent.parent == tmp_path / "private"
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o700
    uploads.remove(first[0])
    assert not Path(first[0]).parent.exists() and Path(second[0]).exists()
    for other in (first[0], str(tmp_path), "/etc/passwd", second[0] + "/../rows.txt", None, 7, [second[0]]):
        assert not uploads.holds(other)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("rows.JSONL", "rows.JSONL"),
        ("Zürich 北京 (2).csv", "Zürich 北京 (2).csv"),
        ("../../etc/a.txt", "a.txt"),
        ("C:\\folder\\a.txt", "a.txt"),
        ("a\x01<b>'$`;.txt", "a__b_____.txt"),
        ("x" * 300 + ".txt", "x" * 56 + ".txt"),
        ("北" * 300 + ".txt", "北" * 56 + ".txt"),
    ],
)
def test_a_file_keeps_its_name_but_for_what_a_folder_can_not_hold(uploads, name, kept):
    (answer,) = send(uploads, (b"anna", name))
    (path,) = answer.json()
    assert Path(path).name == kept and Path(path).read_bytes() == b"anna"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ((b"x", "a.exe"), 415),
        ((b"x", "a.parquet"), 415),  # may unpack to gigabytes
        ((b"x", "a"), 415),
        ((b"x", ".txt"), 415),
        ((b"x" * 1_001, "a.txt"), 413),
        (upload(b"x").replace(b'"files"', b'"other"'), 400),
        (upload(b"x").replace(b"; filename", b"; nothing"), 400),
        (upload(b"x").replace(b"boundary=", b"border=--"), 400),
        (upload(b"x").replace(b"multipart/form-data;", b"text/plain;"), 400),
        (b"POST / HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=a-boundary\r\n\r\nno form", 400),
        (b"POST / HTTP/1.1\r\nA: b\r\n\r\n", 400),
    ],
)
def test_other_kinds_and_sizes_are_refused_and_leave_nothing(uploads, tmp_path, request_, status):
    (answer,) = send(uploads, request_)
    assert answer.status_code == status and answer.text and not (tmp_path / "private").exists()


def test_two_files_in_one_form_are_refused(uploads, tmp_path):
    first, second = (upload(content).partition(b"\r\n\r\n")[2] for content in (b"x", b"y"))
    body = second.removesuffix(b"--a-boundary--\r\n") + first
    head = b"POST / HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=a-boundary\r\n\r\n"
    assert [answer.status_code for answer in send(uploads, head + body)] == [400]
    assert not (tmp_path / "private").exists()


def test_the_oldest_files_go_when_there_are_too_many_or_too_large_ones(uploads, tmp_path):
    def left():
        return sorted(path.read_bytes() for path in (tmp_path / "private").rglob("*.txt"))

    send(uploads, *[(bytes([65 + number]) * 10, "a.txt") for number in range(5)])
    assert left() == [b"C" * 10, b"D" * 10, b"E" * 10]
    send(uploads, (b"F" * 1_000, "a.txt"), (b"G" * 1_000, "a.txt"), (b"H" * 1_000, "a.txt"))
    assert left() == [b"G" * 1_000, b"H" * 1_000]
    assert len(os.listdir(tmp_path / "private")) == 2


def test_what_was_read_makes_room(uploads, tmp_path):
    paths = [answer.json()[0] for answer in send(uploads, *[(b"x", "a.txt")] * 3)]
    Path(paths[1]).unlink()
    send(uploads, (b"x", "a.txt"))
    assert [os.path.exists(path) for path in paths] == [True, False, True]


def test_files_that_nobody_reads_are_removed(tmp_path):
    async def main():
        uploads = Uploads(str(tmp_path / "private"), Limits(file_seconds=0.05))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(uploads), base_url="http://x") as client:
            head, _, body = upload(b"anna").partition(b"\r\n\r\n")
            kind = {"Content-Type": head.decode().partition("Content-Type: ")[2].splitlines()[0]}
            (path,) = (await client.post("/", content=body, headers=kind)).json()
        while os.path.exists(path):
            await asyncio.sleep(0.01)
        assert not uploads.holds(path)

    asyncio.run(asyncio.wait_for(main(), 20))


def test_the_folders_of_servers_that_were_killed_are_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    code = (
        "import os, signal; from multitask.serving.launch import upload_folder\n"
        "with upload_folder() as folder: os.mkdir(folder); os.kill(os.getpid(), signal.{})"
    )
    for name, left in (("SIGTERM", 0), ("SIGHUP", 0), ("SIGKILL", 1)):
        ended = subprocess.run([sys.executable, "-c", code.format(name)], capture_output=True, text=True)
        assert ended.returncode and len(os.listdir(tmp_path)) == left, ended.stderr
    (tmp_path / "multitask-uploads").mkdir()  # somebody else's
    with upload_folder() as folder:
        os.mkdir(folder)
        assert os.environ["GRADIO_TEMP_DIR"] == folder
        with upload_folder() as other:  # of a server that runs
            assert Path(other).parent == Path(folder) or os.path.isdir(folder)
        assert os.path.isdir(folder)
    assert os.environ["GRADIO_TEMP_DIR"] == str(tmp_path)
    assert os.listdir(tmp_path) == ["multitask-uploads"]
