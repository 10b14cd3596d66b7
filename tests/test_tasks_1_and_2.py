"""Tasks 1 and 2 as the shell runs them, on the tiny encoder."""

import numpy as np
import pytest
from conftest import ROOT

import task_1
import task_2


@pytest.fixture
def config(tiny, tmp_path):
    """A config.yml with the tiny encoder in the working folder."""
    text = (ROOT / "config.yml").read_text().replace("backbone: bert-base-uncased", f"backbone: {tiny}")
    (tmp_path / "config.yml").write_text(
        text.replace("max_length: 128", "max_length: 40").replace("stride: 32", "stride: 4")
    )


def test_task_1_shows_its_samples_or_the_given_sentences(shell, config):
    out = shell(task_1).out
    assert out.startswith(
        "Using device: cpu\nEmbedding shape: torch.Size([2, 32])\nSample embedding (first 5 dim"
    )
    given = shell(task_1, "anna won", "anna won", "the chip").out.splitlines()
    assert given[1] == "Embedding shape: torch.Size([3, 32])"
    assert given[4].startswith("  1:  1.0000  1.0000  ")
    many = shell(task_1, *(f"the vote {i}" for i in range(30))).out.splitlines()
    assert many[1] == "Embedding shape: torch.Size([30, 32])"
    assert (many[3], len(many)) == (
        "Cosine similarity of the first 20; --output writes all embeddings:",
        4 + 20,
    )


def test_task_1_writes_the_embeddings_of_a_file(shell, config, tmp_path):
    texts = ["anna won", "", "long " * 60, *(f"the vote {i}" for i in range(1500))]
    (tmp_path / "in.txt").write_text("\n".join(texts))
    ended = shell(task_1, "--input", "in.txt", "--output", "out.npy")
    assert ended.status == 0, ended.err
    written = np.load("out.npy")
    assert written.shape == (len(texts), 32)
    shown = shell(task_1, texts[700]).out
    first = ", ".join(f"{value:.4f}" for value in written[700, :5])
    assert f"first sentence): [{first}]" in shown


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--input", "nowhere.txt"], "nowhere.txt: no such file"),
        (["a", "--input", "in.txt"], "not both"),
        (["--input", "in.txt", "--output", "out.txt"], "out.txt: the name ends in .npy"),
        (["--input", "in.txt", "--output", "no/out.npy"], "there is no folder no"),
        (["--input", "empty.txt", "--output", "out.npy"], "no sentence"),
        (["--input", "bad.txt", "--output", "out.npy"], "bad.txt:2: not UTF-8"),
        (["--config", "nowhere.yml"], "nowhere.yml: no such file"),
    ],
)
def test_task_1_refuses_invalid_arguments(shell, config, tmp_path, arguments, reason):
    for name, content in (("in.txt", b"a\n"), ("empty.txt", b""), ("bad.txt", b"a\n\xff\n")):
        (tmp_path / name).write_bytes(content)
    before = sorted(tmp_path.iterdir())
    ended = shell(task_1, *arguments)
    assert ended.status == 2
    assert ended.err.splitlines()[-1].startswith("error: ")
    assert reason in ended.err
    assert sorted(tmp_path.iterdir()) == before


def test_task_2_shows_shapes_and_trainable_parameters(shell, config):
    out = shell(task_2, "anna won", "the vote in paris").out
    assert "Embedding shape: torch.Size([2, 32])" in out
    assert "Sentence logits shape: torch.Size([2, 3])" in out
    assert "Token logits shape: torch.Size([2, 6, 4])" in out
    trainable = {
        line[2:28].strip(): int(line[28:42].replace(",", ""))
        for line in out.splitlines()
        if line.endswith("%")
    }
    size = 32 // 3  # of the vectors between the token head's parts; it reads 4 layers, and 5 tokens twice
    heads = {"A": 32 * 3 + 3, "B": (4 * 32 + 1) * size + 2 * (5 * size + 1) * size + (size + 1) * 4 + 4 * 4}
    assert trainable["backbone"] == sum(heads.values())
    assert trainable["task A head"] == trainable["nothing"] - heads["A"]
    assert trainable["backbone and task A head"] == heads["B"]
    assert trainable["everything"] == 0
