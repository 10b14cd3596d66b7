"""task_6.py before it serves: refusals in one line that leave no process behind; the models it offers."""

import multiprocessing
import socket

import pytest

import task_6
from multitask.common import errors
from multitask.serving.address import client_of, is_loopback, listen


@pytest.fixture
def used_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_invalid_arguments_are_refused_before_a_model_is_loaded(shell, tiny, used_port):
    for words, reason in (
        (["--model", "nowhere"], "no folder nowhere"),
        (["--model", str(tiny), "--compare", "nowhere"], "no folder nowhere"),
        (
            ["--model", str(tiny), "--port", str(used_port)],
            f"can't listen on 127.0.0.1, port {used_port}: Address already in use",
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


def test_missing_packages_are_named(shell, tiny, monkeypatch):
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name in ("gradio", "uvloop") else name)
    ended = shell(task_6, "--model", tiny)
    assert ended.status == 2
    assert ended.err == "error: the server needs gradio, uvloop: pip install -r requirements-demo.txt\n"


def test_a_folder_without_a_model_is_refused_and_its_process_ends(shell, tmp_path):
    (tmp_path / "empty").mkdir()
    ended = shell(task_6, "--model", "empty", "--port", "0")
    assert ended.status == 2 and ended.err.startswith("error: empty")
    assert not multiprocessing.active_children()


def test_every_other_model_is_offered_once(tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        (tmp_path / "runs" / name / "model").mkdir(parents=True)
    (tmp_path / "runs" / "latest").symlink_to("c")
    monkeypatch.chdir(tmp_path)
    assert task_6.models_to_compare(None, []) == ["runs/c/model", "runs/b/model", "runs/a/model"]
    assert task_6.models_to_compare("runs/latest/model", []) == ["runs/b/model", "runs/a/model"]
    assert task_6.models_to_compare("runs/a/model", ["./runs/b/model", "mine"]) == [
        "./runs/b/model",
        "mine",
        "runs/c/model",
    ]


def test_a_warning_is_printed_if_other_machines_can_reach_the_address(capsys):
    for host, loopback in (("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False)):
        with listen(host, 0) as listener:
            assert is_loopback(listener) == loopback
        assert ("everyone who can reach this address" in capsys.readouterr().err) == (not loopback)


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        (("10.0.0.7", 1), "10.0.0.7"),
        (("::ffff:10.0.0.7", 1, 0, 0), "10.0.0.7"),
        (("2001:db8:1:2:3:4:5:6", 1, 0, 0), "2001:db8:1:2::"),
        (("2001:db8:1:2:ffff::1", 1, 0, 0), "2001:db8:1:2::"),
        (("fe80::1%eth0", 1, 0, 2), "fe80::"),
        ("/run/socket", ""),
        (None, ""),
    ],
)
def test_the_addresses_of_one_network_are_one_client(peer, client):
    assert client_of(peer) == client
