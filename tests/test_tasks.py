"""Tasks 1, 2 and 5 as the shell runs them, on the tiny model."""

import io
import json
import os
import signal
import sys

import numpy as np
import pytest
from conftest import ROOT
from several import together

import task_1
import task_2
import task_4
import task_5
from multitask.data.labels import LabelSpace
from multitask.inference import batch_predict
from multitask.inference.predictions import Entity, Prediction
from multitask.inference.predictor import Predictor
from multitask.inference.resumable_output import ResumableOutput
from multitask.inference.terminal import terminal_renderer


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
        (["a", "--input", "in.txt"], "not both"),
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


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.conll"])
def test_predict_that_is_stopped_goes_on_where_it_was(shell, trained, tmp_path, monkeypatch, name):
    texts = [*(f"anna won vote {i}" for i in range(40)), "", "bad \udce9", "paris"]
    (tmp_path / "in.txt").write_bytes("\n".join(texts).encode("utf-8", "surrogateescape"))
    monkeypatch.setattr(batch_predict, "ROWS", 10)
    arguments = ("predict", "--model", trained, "--input", "in.txt", "--embeddings")
    assert shell(task_5, *arguments, "whole.npy", "--output", f"whole.{name[4:]}").status == 0
    predict, left = Predictor.predict_examples, [2, 1, 9]

    def signalled(*given):
        left[0] -= 1
        if left[0] < 0:
            del left[0]
            os.kill(os.getpid(), signal.SIGTERM)
        return predict(*given)

    monkeypatch.setattr(Predictor, "predict_examples", signalled)
    for resume, rows in ((), 20), (["--resume"], 30):
        ended = shell(task_5, *arguments, "v.npy", "--output", name, *resume)
        assert ended.status == 143
        assert f"stopped by SIGTERM after {rows} rows" in ended.err
        assert not (tmp_path / name).exists()
    ended = shell(task_5, *arguments, "v.npy", "--output", name, "--resume")
    assert ended.status == 0
    assert "resumes after 30 rows" in ended.err
    assert "1 of 13 rows could not be read" in ended.err
    assert (tmp_path / name).read_bytes() == (tmp_path / f"whole.{name[4:]}").read_bytes()
    assert np.load("v.npy").tobytes() == np.load("whole.npy").tobytes()
    again = shell(task_5, *arguments, "v.npy", "--output", name, "--resume")
    assert (again.status, again.err.splitlines()[-1]) == (
        0,
        f"{name} is finished: there is nothing to resume",
    )


def test_a_signal_waits_for_the_end_of_writing(shell, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(batch_predict, "ROWS", 1)
    write = ResumableOutput.write

    def signalled(file, *given):
        os.kill(os.getpid(), signal.SIGINT)
        write(file, *given)

    monkeypatch.setattr(ResumableOutput, "write", signalled)
    ended = shell(task_5, "predict", "--model", trained, "anna", "paris", "--output", "out.jsonl")
    assert ended.status == 130
    assert "stopped by SIGINT after 1 rows" in ended.err
    assert len(rows((tmp_path / "out.jsonl.partial").read_text())) == 1


def test_whatever_a_row_holds_the_others_are_answered(shell, trained, tmp_path):
    lines = [
        '{"text": ""}',
        '{"text": "\\ud800 anna"}',
        '{"text": "a\\u0000b"}',
        '{"text": "' + "x" * 1_000_000 + '"}',
        '{"text": "' + "!" * 20_000 + '"}',
        '{"text": "שלום anna 😀 👨‍👩‍👧 ﷽ e\\u0301"}',
        "no JSON",
        '{"text": "anna won in paris"}',
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    arguments = ("predict", "--model", trained, "--input", "in.jsonl")
    ended = shell(task_5, *arguments, "--output", "out.jsonl", "--embeddings", "v.npy")
    assert ended.status == 0
    assert "2 of 8 rows could not be read" in ended.err
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().split(b"\n")[:-1]]
    assert [row.get("error") for row in answers] == [
        None,
        "in.jsonl:2: the text is not valid UTF-8",
        *[None] * 4,
        "in.jsonl:7: not JSON: Expecting value at column 1",
        None,
    ]
    for line, row in zip(lines, answers):
        if "error" not in row:
            assert row["text"] == json.loads(line)["text"]
            assert all(row["text"][e["start"] : e["end"]] == e["text"] for e in row["entities"])
    assert np.isnan(np.load("v.npy")).all(1).tolist() == ["error" in row for row in answers]


def test_at_a_terminal_predict_marks_entities_and_obeys_no_text(shell, trained, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    texts = ["anna \x1b[31m paris", "caf\udce9"]
    spans = LabelSpace(("sports", "politics"), ("PER", "LOC"), "IO")
    colours = shell(task_5, "predict", "--model", trained, *texts).out
    assert "\\x1b" in colours
    assert "\x1b[31m" not in colours
    assert "text 2: the text is not valid UTF-8" in colours
    monkeypatch.setenv("NO_COLOR", "1")
    said = Prediction(texts[0], "sports", {"sports": 0.25}, [Entity(0, 4, "anna", "PER", 1.0)])
    plain = terminal_renderer(spans)(None, said).decode()
    assert plain == "[anna](PER) \\x1b[31m paris  (sports 0.250)\n"
    monkeypatch.delenv("NO_COLOR")
    assert "\x1b[1;36manna\x1b[22m PER\x1b[0m" in terminal_renderer(spans)(None, said).decode()


def test_several_processes_answer_in_order(shell, trained, tmp_path):
    texts = [f"anna won vote {i} in paris" for i in range(54)] + ["", "bad \udce9", "end"]
    (tmp_path / "in.txt").write_bytes("\n".join(texts).encode("utf-8", "surrogateescape"))
    arguments = ["predict", "--model", trained, "--input", "in.txt", "--embeddings", "v.npy", "--output"]
    alone = shell(task_5, *arguments, "alone.jsonl")
    assert alone.status == 0, alone.err
    vectors = np.load("v.npy")
    (tmp_path / "small_chunks.py").write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import task_5\n"
        "from multitask.inference import batch_predict\n"
        "batch_predict.ROWS = 7; task_5.run_script(task_5.main)"
    )
    ended = together(tmp_path, tmp_path / "small_chunks.py", *map(str, arguments), "both.jsonl")
    assert ended.stderr.count("1 of 57 rows could not be read") == 1, "one process speaks"
    both, one = rows((tmp_path / "both.jsonl").read_text()), rows((tmp_path / "alone.jsonl").read_text())
    assert [row["text"] for row in both] == [row["text"] for row in one]
    for row, other in zip(both, one):
        assert row.get("error") == other.get("error")
        assert row["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
    np.testing.assert_allclose(np.load("v.npy"), vectors, atol=1e-5)


def test_predict_reads_corpus_files_and_standard_input(shell, trained, settings_for, monkeypatch, tmp_path):
    path = next(word for word in settings_for if word.startswith("data.train=")).partition("=")[2]
    answers = rows(shell(task_5, "predict", "--model", trained, "--input", path).out)
    assert [row["text"] for row in answers][0] == "anna won in paris"
    assert answers[4]["text"] == "Annason won the vote."
    (tmp_path / "stdin").write_text("one\ntwo\n")
    with open(tmp_path / "stdin") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file.buffer))
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
        (["predict", "a", "--model", "M", "--output", "o.txt"], "the extension must be .jsonl"),
        (["predict", "a", "--model", "M", "--output", "no/o.csv"], "there is no folder no"),
        (["predict", "a", "--model", "M", "--resume"], "give the --output that was interrupted"),
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
