"""Finding an encoder on the hub, with a local server in its place: downloads run up to the network."""

import hashlib
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import ROOT

from model import MultiTaskTransformer
from multitask.common.errors import InputError
from multitask.encoders.pretrained import (
    BUNDLED,
    bundled_folder,
    find_backbone,
    load_model,
)

FIND = """
import sys
from multitask.encoders.pretrained import find_backbone
from multitask.common.shell import run_script
offline = None if sys.argv[2] == "null" else sys.argv[2]
run_script(lambda: [print(*find_backbone(sys.argv[1], offline, of)) for of in sys.argv[3:] or [None]])
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """The two requests of a download: HEAD for a file's hash and size, GET for its bytes."""

    folder: Path
    requests: list[str]
    commits = {"main": "0" * 40, "1" * 40: "1" * 40}

    def do_HEAD(self):
        self.requests.append(f"{self.command} {self.path}")
        match = re.fullmatch(r"/([\w/-]+)/resolve/(\w+)/([\w./]+)", self.path)
        known = match and match[1] == "some-bert"
        commit = self.commits.get(match[2]) if known else None
        file = self.folder / match[3] if commit else None
        if file is None or not file.is_file():
            self.send_response(404)
            code = "EntryNotFound" if commit else "RevisionNotFound" if known else "RepoNotFound"
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        content = file.read_bytes()
        self.send_response(200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return content

    def do_GET(self):
        content = self.do_HEAD()
        if content:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tiny):
    handler = type("Handler", (Hub,), {"folder": tiny, "requests": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def find(tmp_path):
    """Call find_backbone in its own process, since the hub's library reads its settings on import."""

    def call(
        name: str, endpoint: str | None, offline: str = BUNDLED, *revision: str
    ) -> subprocess.CompletedProcess:
        environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        environment |= {"HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "0"}
        environment |= {"HF_ENDPOINT": endpoint} if endpoint else {"HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-c", FIND, name, offline, *revision]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)

    return call


def address(server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def test_a_model_is_downloaded_once_and_then_found_without_the_hub(hub, find, tiny):
    first = find("some-bert", address(hub))
    assert first.returncode == 0, first.stderr
    folder, name = first.stdout.split()
    assert name == "some-bert"
    for file in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        assert Path(folder, file).read_bytes() == (tiny / file).read_bytes()
    requests = len(hub.RequestHandlerClass.requests)
    assert requests
    again = find("some-bert", None)
    assert (again.stdout, again.stderr) == (first.stdout, "")
    assert len(hub.RequestHandlerClass.requests) == requests
    load_model(
        MultiTaskTransformer,
        folder,
        new_heads=True,
        num_classes_task_a=3,
        num_labels_task_b=4,
    )


def test_a_revision_is_the_only_one_that_is_asked_for_and_found_again(hub, find):
    """The newest commit is neither downloaded for it, nor taken from the cache in its place."""
    commit, unknown, requests = "1" * 40, "2" * 40, hub.RequestHandlerClass.requests
    ended = find("some-bert", address(hub), "null", commit, commit, "main", unknown)
    pinned, again, newest = ended.stdout.splitlines()
    assert commit in pinned and again == pinned != newest
    assert ended.stderr == f"error: model.revision: the hub has no '{unknown}' of some-bert\n"
    assert ended.returncode == 2
    of_model = [request for request in requests if "some-bert" in request]
    first = next(at for at, request in enumerate(of_model) if "/main/" in request)
    assert all(f"/some-bert/resolve/{commit}/" in request for request in of_model[:first])
    loaded = [request for request in of_model[:first] if request.startswith("GET")]
    assert len(loaded) == len(set(loaded)) >= 4


def test_a_revision_of_what_is_not_on_the_hub_is_refused(tiny):
    for name, what in ((str(tiny), "a folder"), (BUNDLED, "installed with the requirements")):
        with pytest.raises(InputError, match=f"model.revision is about the hub, but {name} is {what}"):
            find_backbone(name, revision="main")


def test_a_name_unknown_to_the_hub_is_an_error(hub, find):
    ended = find("sum-bert", address(hub))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "the hub has no model 'sum-bert'" in ended.stderr


def test_a_model_without_safetensors_is_an_error(hub, find, tiny, tmp_path):
    hub.RequestHandlerClass.folder = tmp_path / "bare"
    hub.RequestHandlerClass.folder.mkdir()
    shutil.copy(tiny / "config.json", hub.RequestHandlerClass.folder)
    ended = find("some-bert", address(hub))
    assert ended.returncode == 2
    assert "some-bert has no model.safetensors" in ended.stderr


@pytest.mark.parametrize("silent", [True, False])
def test_without_an_answer_the_installed_encoder_is_used_with_a_warning(find, silent):
    import socket

    # a server that accepts the connection but never answers, and a port without a server
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        if not silent:
            listener.close()
        ended = find("some-bert", endpoint)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.split() == [str(bundled_folder()), BUNDLED]
        assert re.fullmatch(
            rf"some-bert is not cached, and the hub can't be reached \(\w+\): using {BUNDLED} .*\n",
            ended.stderr,
        )
        refused = find("some-bert", endpoint, "null")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "set model.offline_backbone to use another encoder" in refused.stderr


def test_a_hanging_probe_does_not_delay_the_run(monkeypatch, capsys):
    import huggingface_hub

    release, ended = threading.Event(), threading.Event()

    def hang(*_, **__):
        release.wait(60)
        ended.set()

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", hang)
    monkeypatch.setattr("multitask.encoders.hub.PROBE_SECONDS", 0.1)
    assert find_backbone("some-bert").name == BUNDLED
    assert not ended.is_set()
    release.set()
    assert "the hub can't be reached (TimeoutError)" in capsys.readouterr().err


def test_hf_hub_offline_uses_the_installed_encoder(find):
    ended = find("some-bert", None)
    assert "HF_HUB_OFFLINE is set" in ended.stderr
    assert ended.returncode == 0
