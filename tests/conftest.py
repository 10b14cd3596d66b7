"""A tiny random BERT, which needs no network and little time, and a way to run a task as the shell does."""

import json
import os
import platform
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

# before any library reads them: no test may use the hub
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "true"
if platform.machine() in ("x86_64", "AMD64"):  # else a CPU with AVX512-BF16 computes in bfloat16 by default
    os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
if "PYTEST_XDIST_WORKER" in os.environ:  # every core runs a test: more threads would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from alike import train_run  # noqa: F401 - a fixture
from hypothesis import settings
from killing import make_quick
from random_models import random_model, random_predictor  # noqa: F401 - fixtures
from resuming import ROWS, fresh, killed, runs, stopped, whole  # noqa: F401 - fixtures, but ROWS
from transformers import BertConfig, BertModel, BertTokenizer

from model import MultiTaskTransformer
from multitask.common.shell import run_script, show_messages
from multitask.encoders.pretrained import load_tokenizer

show_messages()  # on standard error, where tests look for them

# no test has a time limit; CI uses the same inputs in every run, other runs look for new ones
settings.register_profile("project", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("project")

SLOW = ("docs", "studies", "processes", "load", "benchmarks", "pretrained", "trainer")
MINUTES = [f"test_{name}.py" for name in SLOW]

ROOT = Path(__file__).resolve().parent.parent
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [chr(c) for c in range(33, 127) if not chr(c).isupper()] + list("éß中न0")
WORDS = ["the", "won", "in", "and", "paris", "anna", "##son", "##ing", "vote", "match", "chip"]


def pytest_collection_modifyitems(items):
    """The slowest modules start first, so that all cores work to the end."""
    items.sort(key=lambda item: MINUTES.index(item.path.name) if item.path.name in MINUTES else len(MINUTES))


@pytest.fixture(autouse=True)
def quick_pages(monkeypatch):
    """Reports without pictures, which take a second; test_report.py draws them."""
    make_quick(monkeypatch.setattr)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A folder with a BERT of 3 layers × 32, whose vocabulary holds every printable ASCII character."""
    folder = tmp_path_factory.mktemp("tiny")
    vocabulary = [*SPECIAL, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary)) + "\n", encoding="utf-8")
    tokenizer = BertTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tiny):
    return load_tokenizer(tiny)


class Ended(NamedTuple):
    """Exit status and output of a command."""

    status: int
    out: str
    err: str


@pytest.fixture
def shell(tmp_path, monkeypatch, capfd):
    """Run a task's main in an empty folder, as `python task_N.py ...` would."""
    monkeypatch.chdir(tmp_path)

    def call(task, *arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", [task.__name__ + ".py", *map(str, arguments)])
        capfd.readouterr()
        try:
            run_script(task.main)
            status = 0
        except SystemExit as end:
            status = end.code or 0
        return Ended(status, *capfd.readouterr())

    return call


@pytest.fixture
def put(tmp_path):
    """A function that writes a file → its path."""

    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


@pytest.fixture
def write_rows(put):
    """A function that writes rows as JSON Lines → the path."""
    return lambda name, rows: put(name, "".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def rows():
    """Rows with two classes and two types, as text or tokens; some lack one annotation."""
    return [dict(row) for row in ROWS]


@pytest.fixture
def settings_for(tiny, rows, write_rows):
    """Arguments that train the tiny model on the rows for one epoch."""
    path = write_rows("rows.jsonl", rows)
    return [
        f"--config={ROOT / 'config.yml'}",
        f"model.backbone={tiny}",
        "model.num_classes_task_a=2",
        "model.num_labels_task_b=3",
        "model.max_length=32",
        "model.stride=8",
        f"data.train={path}",
        f"data.dev={path}",
        f"data.test={path}",
        "training.num_epochs=1",
        "training.batch_size=4",
        "device=cpu",
        "output_dir=run",
    ]


@pytest.fixture
def learned(shell, settings_for, rows, write_rows) -> str:
    """The model folder of a run that has learned its rows well enough to find entities in them. Its dev,
    dev.jsonl, has each of them ten times: few rows promise little."""
    import task_4

    dev = write_rows("dev.jsonl", rows * 10)
    rates = "training.learning_rate=3e-3", "training.head_learning_rate=1e-2", "training.num_epochs=9"
    ended = shell(task_4, *settings_for, f"data.dev={dev}", "model.freeze_backbone=false", *rates)
    assert ended.status == 0, ended.err
    return "run/model"


class Exported(NamedTuple):
    """A model folder, its export, annotated rows, and how task_5.py export ended."""

    model: Path
    folder: Path
    rows: Path
    ended: Ended


@pytest.fixture(scope="session")
def trained(tiny, tmp_path_factory) -> Path:
    """The folder run/model of a random model with two classes and two types; rows.jsonl lies beside run."""
    folder = tmp_path_factory.mktemp("trained")
    tags = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    torch.manual_seed(4)
    model = MultiTaskTransformer.from_pretrained(
        tiny,
        num_hidden_layers=2,
        num_classes_task_a=2,
        classes=["politics", "sports"],
        id2label=dict(enumerate(tags)),
        label2id={tag: i for i, tag in enumerate(tags)},
        tag_scheme="BIO",
        pooling="mean",
        token_head="convolution_crf",
        max_length=24,
        stride=6,
        temperature_task_a=2.5,
        temperature_task_b=0.5,
    )
    for head in (model.classifier, model.sentence_classifier):  # untrained heads say O to everything
        torch.nn.init.normal_(head.weight)
        torch.nn.init.normal_(head.bias)
    for parameter in model.token_convolution.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.nn.init.normal_(model.transitions.weight, std=0.1)
    model.save_pretrained(folder / "run" / "model")
    shutil.copy(tiny / "tokenizer.json", folder / "run" / "model")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "run" / "config.yml").write_text(f"data:\n  dev: {rows}\n")
    return folder / "run" / "model"


@pytest.fixture(scope="session")
def exported(trained) -> Exported:
    """The export of that model."""
    import task_5

    folder, out, err = trained.parent.parent, StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["task_5.py", "export", "out", "--model", "run/model"])
        run_script(task_5.main)
    return Exported(trained, folder / "out", folder / "rows.jsonl", Ended(0, out.getvalue(), err.getvalue()))
