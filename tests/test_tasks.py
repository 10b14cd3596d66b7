"""Tasks 1, 2 and 5 as the shell runs them, on the tiny model."""

import io
import json

import numpy as np
import pytest
from conftest import ROOT

import task_1
import task_2
import task_4
import task_5


@pytest.fixture
def config(tiny, tmp_path):
    text = (ROOT / "config.yml").read_text().replace("backbone: bert-base-uncased", f"backbone: {tiny}")
    (tmp_path / "config.yml").write_text(
        text.replace("max_length: 128", "max_length: 40").replace("stride: 32", "stride: 4")
    )


@pytest.fixture
def trained(shell, settings_for):
    """The folder of a model that task_4.py trained."""
    ended = shell(task_4, *settings_for)
    assert ended.status == 0, ended.err
    return "run/model"


def rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_task_1_shows_samples_or_the_sentences_given(shell, config):
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
        (["a", "--input", "in.txt"], "given twice"),
        (["--input", "in.txt", "--output", "out.txt"], "out.txt: the name ends in .npy"),
        (["--input", "in.txt", "--output", "no/out.npy"], "there is no folder no"),
        (["--input", "empty.txt", "--output", "out.npy"], "no sentence"),
        (["--input", "bad.txt", "--output", "out.npy"], "bad.txt:2: not UTF-8"),
        (["--config", "nowhere.yml"], "nowhere.yml: no such file"),
    ],
)
def test_task_1_refuses_what_it_can_not_do(shell, config, tmp_path, arguments, reason):
    for name, content in (("in.txt", b"a\n"), ("empty.txt", b""), ("bad.txt", b"a\n\xff\n")):
        (tmp_path / name).write_bytes(content)
    before = sorted(tmp_path.iterdir())
    ended = shell(task_1, *arguments)
    assert ended.status == 2
    assert ended.err.splitlines()[-1].startswith("error: ")
    assert reason in ended.err
    assert sorted(tmp_path.iterdir()) == before


def test_task_2_shows_shapes_and_what_each_choice_leaves(shell, config):
    out = shell(task_2, "anna won", "the vote in paris").out
    assert "Embedding shape: torch.Size([2, 32])" in out
    assert "Sentence logits shape: torch.Size([2, 3])" in out
    assert "Token logits shape: torch.Size([2, 6, 4])" in out
    left = {
        line[2:28].strip(): int(line[28:42].replace(",", ""))
        for line in out.splitlines()
        if line.endswith("%")
    }
    heads = {"A": 32 * 3 + 3, "B": 32 * 4 + 4}
    everything = left["nothing"]
    assert left["backbone"] == sum(heads.values())
    assert left["task A head"] == everything - heads["A"]
    assert left["backbone and task A head"] == heads["B"]
    assert left["everything"] == 0


def test_predict_answers_every_text_in_order(shell, trained, tmp_path):
    texts = ["anna won in paris", "", 'quote " and \u2028', *(f"the vote {i}" for i in range(1100))]
    (tmp_path / "in.txt").write_text("\n".join(texts), encoding="utf-8")
    arguments = ("--model", trained, "--input", "in.txt")
    ended = shell(task_5, "predict", *arguments, "--output", "out.jsonl", "--embeddings", "e.npy")
    assert (ended.status, ended.out) == (0, ""), ended.err
    answers = rows((tmp_path / "out.jsonl").read_text(encoding="utf-8").replace("\u2028", "\\u2028"))
    assert [row["text"] for row in answers] == texts
    assert list(answers[0]) == ["text", "label", "probabilities", "entities"]
    assert set(answers[0]["probabilities"]) == {"sports", "politics"}
    assert np.load("e.npy").shape == (len(texts), 32)
    direct = shell(task_5, "predict", "--model", trained, texts[0], texts[1])
    for row, other in zip(rows(direct.out), answers, strict=False):
        assert row["label"] == other["label"]
        assert row["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)


def test_predict_reads_corpus_files_and_standard_input(shell, trained, settings_for, monkeypatch, tmp_path):
    path = next(word for word in settings_for if word.startswith("data.train=")).partition("=")[2]
    answers = rows(shell(task_5, "predict", "--model", trained, "--input", path).out)
    assert [row["text"] for row in answers][0] == "anna won in paris"
    assert answers[4]["text"] == "Annason won the vote."
    (tmp_path / "stdin").write_text("one\ntwo\n")
    with open(tmp_path / "stdin") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file.buffer))
        import os

        saved = os.dup(0)
        os.dup2(file.fileno(), 0)
        try:
            piped = shell(task_5, "predict", "--model", trained, "--input", "-")
        finally:
            os.dup2(saved, 0)
    assert [row["text"] for row in rows(piped.out)] == ["one", "two"]


def test_evaluate_gives_the_scores_that_training_logged(shell, trained, settings_for, tmp_path):
    path = next(word for word in settings_for if word.startswith("data.train=")).partition("=")[2]
    logged = rows((tmp_path / "run/metrics.jsonl").read_text())[-1]["test"]
    scores = json.loads(shell(task_5, "evaluate", path, "--model", trained, "--json").out)
    assert {name: scores[name] for name in logged} == pytest.approx(logged)
    text = shell(task_5, "evaluate", path, "--model", trained).out
    assert f"accuracy {logged['accuracy']:.4f}" in text


def test_evaluate_warns_of_labels_that_the_model_can_not_say(shell, trained, write_rows):
    path = write_rows("odd.jsonl", [{"tokens": ["a"], "tags": ["B-GPE"], "label": "weather"}])
    ended = shell(task_5, "evaluate", path, "--model", trained)
    assert ended.status == 0
    assert "has the class 'weather' 1 times" in ended.err
    assert "has the type 'GPE' 1 times" in ended.err
    assert "accuracy 0.0000" in ended.out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["predict", "a", "--model", "nowhere"], "no folder nowhere"),
        (["predict", "a"], "python task_4.py trains one"),
        (["predict", "a", "--model", "ENCODER"], "an encoder without trained heads"),
        (["predict", "--model", "M"], "give texts"),
        (["predict", "a", "--input", "x", "--model", "M"], "give texts"),
        (["predict", "--input", "nowhere.txt", "--model", "M"], "nowhere.txt: no such file"),
        (["predict", "--input", "bad.txt", "--model", "M", "--output", "o"], "bad.txt:3: not UTF-8"),
        (["predict", "a", "--model", "M", "--output", "no/o"], "there is no folder no"),
        (["predict", "a", "--model", "M", "--embeddings", "o.bin"], "ends in .npy"),
        (["predict", "a", "--model", "M", "--device", "tpu"], "a device is cpu, cuda or cuda:1"),
        (["evaluate", "nowhere.jsonl", "--model", "M"], "nowhere.jsonl: no such file"),
        (["evaluate", "bad.jsonl", "--model", "M"], "bad.jsonl:1: not JSON"),
        (["evaluate", "plain.jsonl", "--model", "M"], "no row is annotated"),
    ],
)
def test_task_5_refuses_what_it_can_not_do(shell, trained, tiny, tmp_path, arguments, reason):
    (tmp_path / "bad.txt").write_bytes(b"a\nb\n\xff\n")
    (tmp_path / "bad.jsonl").write_text("{\n")
    (tmp_path / "plain.jsonl").write_text('{"text": "a"}\n')
    before = sorted(tmp_path.iterdir())
    ended = shell(task_5, *({"M": trained, "ENCODER": tiny}.get(word, word) for word in arguments))
    assert ended.status == 2
    assert reason in ended.err
    assert "Traceback" not in ended.err
    assert sorted(tmp_path.iterdir()) == before
