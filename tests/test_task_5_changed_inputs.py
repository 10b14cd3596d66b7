"""task_5.py predict where files have changed or have two roles: the right answers or a refusal."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

import task_1
import task_5
from multitask.inference import batch_predict
from multitask.inference.predictor import Predictor
from multitask.inference.resumable_output import ResumableOutput

ROWS = [{"text": f"anna won vote {number}", "label": "sports"} for number in range(5)]
FILES = ["mine.jsonl", "out.jsonl.partial", "out.jsonl.partial.json", ".out.jsonl.finished.json"]


@pytest.fixture
def predict(shell, trained):
    """A function that runs `task_5.py predict`, with the trained model unless another is named."""

    def call(*arguments, model=trained):
        return shell(task_5, "predict", "--model", model, *arguments)

    return call


@pytest.fixture
def mine(write_rows):
    return write_rows("mine.jsonl", ROWS)


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


def texts(path):
    return [json.loads(line)["text"] for line in Path(path).read_text().splitlines()]


def assert_refused(call, reason):
    """Assert that a call ends with status 2 and one line, and changes no file of the working folder."""
    before = contents(".")
    ended = call()
    assert ended.status == 2 and reason in ended.err, ended
    assert len(ended.err.splitlines()) == 1 and ended.out == ""
    assert contents(".") == before


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
@pytest.mark.parametrize("name", FILES)
def test_an_input_that_would_be_overwritten_is_refused(predict, mine, tmp_path, name, link):
    """It is the output, or a file that is written beside it, under its own name or by a link."""
    if name != "mine.jsonl":
        shutil.copy(mine, tmp_path / name)
    source = "link" if link else name
    if link:
        link(tmp_path / name, source)
    output = "mine.jsonl" if name == "mine.jsonl" else "out.jsonl"
    for resume in ([], ["--resume"]):
        call = lambda resume=resume: predict("--input", f"./{source}", "--output", output, *resume)  # noqa: E731
        assert_refused(call, "write to another file")


@pytest.mark.parametrize("name", ["v.npy", "v.npy.partial"])
def test_embeddings_do_not_overwrite_the_input(predict, tmp_path, name):
    (tmp_path / name).write_text("anna\n")
    for output in (["--output", "out.jsonl"], []):
        if output or name == "v.npy":
            assert_refused(
                lambda o=output: predict("--input", name, *o, "--embeddings", "v.npy"), "is read too"
            )


def test_the_files_of_the_model_are_not_overwritten(predict, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "model")
    before = contents("model")
    assert_refused(lambda: predict("anna", "--output", "model/config.json", model="model"), "is read too")
    assert contents("model") == before


@pytest.mark.parametrize(
    "redirection", ["--input mine.jsonl >> mine.jsonl", "--input - --output mine.jsonl < mine.jsonl"]
)
def test_redirected_files_count_too(mine, trained, tmp_path, redirection):
    before = contents(tmp_path)
    command = f"{sys.executable} {ROOT / 'task_5.py'} predict --model {trained} {redirection}"
    ended = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2 and "is the same file as" in ended.stderr, ended
    assert contents(tmp_path) == before


def test_other_commands_do_not_overwrite_what_they_read(shell, trained, tmp_path, mine):
    (tmp_path / "s.npy").write_text("anna\n")
    words = (f"--config={ROOT / 'config.yml'}", "--input", "s.npy", "--output", "./s.npy")
    assert_refused(lambda: shell(task_1, *words), "s.npy: is read too")
    (tmp_path / "evaluation").mkdir()
    picture = shutil.copy(mine, "evaluation/risk.png")
    assert_refused(lambda: shell(task_5, "evaluate", picture, "--model", trained), f"{picture}: is read too")
    assert Path(picture).read_bytes() == Path(mine).read_bytes()


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_a_finished_output_is_compared_with_what_is_asked_for(
    predict, mine, write_rows, trained, tmp_path, name
):
    """Another input, a part of it, more of it, another model, another option: the old answers are not taken
    for new ones."""
    asked = ("--output", name, "--embeddings", "v.npy", "--resume")
    assert predict("--input", mine, *asked[:-1]).status == 0
    write_rows("other.jsonl", [{"text": "other"}, *ROWS[1:]])
    write_rows("fewer.jsonl", ROWS[:-1])
    write_rows("more.jsonl", [*ROWS, {"text": "more"}])
    shutil.copytree(trained, tmp_path / "model")
    (tmp_path / "model" / "vocab.txt").write_text("another\n")
    for source in ("other.jsonl", "fewer.jsonl"):
        assert_refused(lambda s=source: predict("--input", s, *asked), "not the first rows of the input")
    assert_refused(lambda: predict("--input", "more.jsonl", *asked), "the input has more")
    assert_refused(lambda: predict("--input", mine, *asked, model="model"), "with another model")
    words = ("--output", name, "--resume")
    assert_refused(lambda: predict("--input", mine, *words), "with another choice of embeddings")
    before = contents(tmp_path)
    ended = predict("--input", mine, *asked)
    assert (ended.status, ended.err) == (0, f"{name} is finished: there is nothing to resume\n")
    assert contents(tmp_path) == before


def test_a_finished_output_that_was_changed_or_has_no_facts_is_refused(predict, mine, tmp_path):
    asked = ("--input", mine, "--output", "out.jsonl", "--embeddings", "v.npy")
    assert predict(*asked).status == 0
    for name, reason in (
        ("out.jsonl", "out.jsonl: is missing, or has changed"),
        ("v.npy", "v.npy: is missing, or has changed"),
        (".out.jsonl.finished.json", "nothing tells what it was made of"),
    ):
        path = tmp_path / name
        content = path.read_bytes()
        for changed in (None, content[:-2]):
            path.unlink() if changed is None else path.write_bytes(changed)
            refusal = "is damaged" if "json" in name.split(".")[-1] and changed and name[0] == "." else reason
            assert_refused(lambda: predict(*asked, "--resume"), refusal)
        path.write_bytes(content)
    for name in ("out.jsonl", "v.npy"):
        (tmp_path / name).unlink()
    ended = predict(*asked, "--resume")
    assert ended.status == 0 and "starts with the first row" in ended.err
    assert texts("out.jsonl") == [row["text"] for row in ROWS] and len(np.load("v.npy")) == len(ROWS)


def test_a_run_killed_while_the_model_loads_is_not_taken_for_an_older_one(
    predict, mine, write_rows, monkeypatch
):
    def kill(*_, **__):
        raise SystemExit(137)

    assert predict("--input", mine, "--output", "out.jsonl").status == 0
    write_rows("other.jsonl", [{"text": "other"}])
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "from_pretrained", kill)
        patch.setattr(ResumableOutput, "withdraw", lambda output: output.lock.close())  # a kill runs nothing
        assert predict("--input", "other.jsonl", "--output", "out.jsonl").status == 137
    assert texts("out.jsonl") == [row["text"] for row in ROWS]
    asked = ("--output", "out.jsonl", "--resume")
    words = (*asked, "--embeddings", "v.npy")
    assert_refused(lambda: predict("--input", "other.jsonl", *words), "with another choice of embeddings")
    ended = predict("--input", "other.jsonl", *asked)
    assert ended.status == 0 and texts("out.jsonl") == ["other"]
    assert sorted(contents(".")) == [".out.jsonl.finished.json", "mine.jsonl", "other.jsonl", "out.jsonl"]


def test_a_model_that_can_not_be_loaded_costs_nothing(predict, mine, trained, tmp_path, monkeypatch):
    """Neither a new run leaves files, nor does it lose an unfinished output that it would replace."""
    shutil.copytree(trained, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    asked = ("--input", mine, "--output", "out.jsonl")
    assert_refused(lambda: predict(*asked, model="model"), "model")
    monkeypatch.setattr(batch_predict, "ROWS", 2)
    real = Predictor.predict_examples

    def fail(predictor, examples, *arguments, **named):
        if examples[0].text == ROWS[2]["text"]:
            raise OSError(5, "broken")
        return real(predictor, examples, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "predict_examples", fail)
        assert predict(*asked).status == 1
    before = contents(tmp_path)
    assert "out.jsonl.partial" in before
    ended = predict(*asked, model="model")
    assert ended.status == 2 and contents(tmp_path) == before
    assert predict(*asked, "--resume").status == 0
    assert texts("out.jsonl") == [row["text"] for row in ROWS]


def test_csv_for_a_spreadsheet_has_no_formulas(predict, write_rows, tmp_path):
    starts = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "fine"]
    write_rows("in.jsonl", [{"text": text} for text in starts])
    (tmp_path / "=bad.jsonl").write_text("no JSON\n")
    for words, marks in ((["--spreadsheet"], "'"), ([], "")):
        assert predict("--input", "in.jsonl", "--output", "out.csv", *words).status == 0
        with open("out.csv", newline="") as file:
            written = [row["text"] for row in csv.DictReader(file)]
        assert written == [*(marks + text for text in starts[:-1]), "fine"]
        assert predict("--input", "=bad.jsonl", "--output", "bad.csv", *words).status == 0
        with open("bad.csv", newline="") as file:
            assert [row["error"][: 1 + len(marks)] for row in csv.DictReader(file)] == [f"{marks}="]
    assert_refused(
        lambda: predict("--input", "in.jsonl", "--output", "out.csv", "--spreadsheet", "--resume"),
        "--spreadsheet",
    )
    assert_refused(
        lambda: predict("--input", "in.jsonl", "--output", "o.jsonl", "--spreadsheet"), "ends in .csv"
    )
