"""task_6.py before it serves: what it refuses, in one line, with nothing left behind."""

import multiprocessing
import socket

import pytest

import task_6
from multitask.common import errors
from multitask.serving.address import is_loopback, listen


@pytest.fixture
def taken():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_what_can_not_be_served_is_refused_before_anything_is_loaded(shell, tiny, taken):
    for words, reason in (
        (["--model", "nowhere"], "no folder nowhere"),
        (["--model", str(tiny), "--compare", "nowhere"], "no folder nowhere"),
        (
            ["--model", str(tiny), "--port", str(taken)],
            f"can't listen on 127.0.0.1, port {taken}: Address already in use",
        ),
        (["--model", str(tiny), "--port", "70000"], "can't listen on 127.0.0.1, port 70000"),
        (
            ["--model", str(tiny), "--host", "no.such.host.invalid"],
            "can't listen on no.such.host.invalid, port 7860",
        ),
    ):
        ended = shell(task_6, *words)
        assert ended.status == 2 and ended.err.startswith(f"error: {reason}"), ended.err
        assert ended.err.count("\n") == 1 and not multiprocessing.active_children()


def test_libraries_that_are_missing_are_named(shell, tiny, monkeypatch):
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name in ("gradio", "uvloop") else name)
    ended = shell(task_6, "--model", tiny)
    assert ended.status == 2
    assert ended.err == "error: the server needs gradio, uvloop: pip install -r requirements-demo.txt\n"


def test_a_folder_that_holds_no_model_is_refused_and_its_process_is_gone(shell, tmp_path):
    (tmp_path / "empty").mkdir()
    ended = shell(task_6, "--model", "empty", "--port", "0")
    assert ended.status == 2 and ended.err.startswith("error: empty")
    assert not multiprocessing.active_children()


def test_every_other_model_is_offered_once(tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        (tmp_path / "runs" / name / "model").mkdir(parents=True)
    (tmp_path / "runs" / "latest").symlink_to("c")
    monkeypatch.chdir(tmp_path)
    assert task_6.others(None, []) == ["runs/c/model", "runs/b/model", "runs/a/model"]
    assert task_6.others("runs/latest/model", []) == ["runs/b/model", "runs/a/model"]
    assert task_6.others("runs/a/model", ["./runs/b/model", "mine"]) == [
        "./runs/b/model",
        "mine",
        "runs/c/model",
    ]


def test_only_another_address_than_loopback_is_open_to_others(capsys):
    for host, closed in (("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False)):
        with listen(host, 0) as listener:
            assert is_loopback(listener) == closed
        assert ("everyone who reaches this machine" in capsys.readouterr().err) == (not closed)
