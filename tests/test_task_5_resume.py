"""task_5.py predict stopped by signals and resumed, and in several processes."""

import json
import os
import signal

import numpy as np
import pytest
from conftest import ROOT
from several import together

import task_5
from multitask.inference import batch_predict
from multitask.inference.predictor import Predictor
from multitask.inference.resumable_output import ResumableOutput


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.conll", "out.labelstudio.json", "out.parquet"])
def test_a_stopped_prediction_resumes_to_the_same_files(shell, trained, tmp_path, monkeypatch, name):
    texts = [*(f"anna won vote {i}" for i in range(40)), "", "bad \udce9", "paris"]
    (tmp_path / "in.txt").write_bytes("\n".join(texts).encode("utf-8", "surrogateescape"))
    monkeypatch.setattr(batch_predict, "ROWS", 10)
    arguments = ("predict", "--model", trained, "--input", "in.txt", "--embeddings")
    assert shell(task_5, *arguments, "whole.npy", "--output", f"whole.{name[4:]}").status == 0
    predict, calls_before_signal = Predictor.predict_examples, [2, 1, 9]

    def signalled(*arguments, **named):
        calls_before_signal[0] -= 1
        if calls_before_signal[0] < 0:
            del calls_before_signal[0]
            os.kill(os.getpid(), signal.SIGTERM)
        return predict(*arguments, **named)

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

    def signalled(file, *arguments):
        os.kill(os.getpid(), signal.SIGINT)
        write(file, *arguments)

    monkeypatch.setattr(ResumableOutput, "write", signalled)
    ended = shell(task_5, "predict", "--model", trained, "anna", "paris", "--output", "out.jsonl")
    assert ended.status == 130
    assert "stopped by SIGINT after 1 rows" in ended.err
    assert len((tmp_path / "out.jsonl.partial").read_text().splitlines()) == 1


def test_several_processes_write_rows_in_order(shell, trained, tmp_path):
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
    assert ended.stderr.count("1 of 57 rows could not be read") == 1, "only the first process logs"
    both, one = (
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for name in ("both.jsonl", "alone.jsonl")
    )
    assert [row["text"] for row in both] == [row["text"] for row in one]
    for row, other in zip(both, one):
        assert row.get("error") == other.get("error")
        assert row["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
    np.testing.assert_allclose(np.load("v.npy"), vectors, atol=1e-5)
