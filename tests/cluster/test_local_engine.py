"""task_5.py predict --engine local: large inputs in shards, without a cluster."""

import errno
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from cluster_jobs import SHARDS, almost, as_json, contents, rows_of, words, write_input

import task_5
from multitask.cluster.worker import Worker
from multitask.common import atomic_files
from multitask.inference.predictor import Predictor


@pytest.fixture
def start(shell, trained, tmp_path):
    """Start the job of in/, or the same with other options."""
    write_input(tmp_path / "in")

    def begin(*more, **how):
        return shell(task_5, *words(trained, *more, **how))

    return begin


@pytest.fixture
def whole(start):
    """The files of a job that was never stopped; its folder is gone."""
    assert start().status == 0
    files = contents("out")
    shutil.rmtree("out")
    return files


def predicted(monkeypatch, before=lambda number: None) -> list[int]:
    """The numbers of the shards that are predicted from now on; `before` is called with each."""
    numbers, real = [], Worker.predict

    def predict(worker, shard):
        before(shard.number)
        numbers.append(shard.number)
        return real(worker, shard)

    monkeypatch.setattr(Worker, "predict", predict)
    return numbers


def test_the_rows_are_those_of_predict_with_their_places(start, shell, trained):
    ended = start()
    said = f"out: 25 rows in {SHARDS} files; 2 could not be read, and have the reason in `error`\n"
    assert (ended.status, ended.out) == (0, said), ended.err
    rows = rows_of("out")
    expected = []
    for name in ("a", "b"):
        asked = ("predict", "--input", f"in/{name}.jsonl", "--model", trained, "--output", f"{name}.jsonl")
        assert shell(task_5, *asked).status == 0
        expected += [json.loads(line) for line in Path(f"{name}.jsonl").read_text().splitlines()]
    assert as_json(rows) == almost(expected)
    lines = [*range(1, 8), *range(9, 15)]
    assert [(row["file"], row["line"]) for row in rows] == [
        *(("in/a.jsonl", line) for line in lines),
        *(("in/b.jsonl", line) for line in range(1, 13)),
    ]
    assert [row["error"].split(": ")[0] for row in rows if row["error"]] == ["in/a.jsonl:9", "in/b.jsonl:12"]
    assert sorted(contents("out")) == ["_job.json", *(f"part-0000{i}.parquet" for i in range(SHARDS))]
    assert pq.read_table("out").num_rows == 25, "a folder is read as one table"


def test_a_pattern_and_texts_are_predicted_too(start, shell, trained, tmp_path):
    (tmp_path / "in" / "c.txt").write_text("anna in paris\n\nthe vote\n")
    asked = [
        "predict",
        "--engine",
        "local",
        "--model",
        trained,
        "--input",
        "in/*.txt",
        "--output",
        "deep/out",
    ]
    ended = shell(task_5, *asked)
    assert (ended.status, ended.out) == (0, "deep/out: 3 rows in 1 files\n"), ended.err
    assert [row["text"] for row in rows_of("deep/out")] == ["anna in paris", "", "the vote"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_job_keeps_its_shards_and_ends_with_the_same_files(start, whole, monkeypatch, number):
    def stop(shard):
        if shard == 3:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        predicted(patch, stop)
        ended = start()
    assert ended.status == 128 + number
    name = signal.Signals(number).name
    assert ended.err.endswith(
        f"stopped by {name}; 3 of 6 shards are finished, and the same command continues\n"
    )
    assert [name for name in contents("out") if name.startswith(".")] == []
    numbers = predicted(monkeypatch)
    ended = start()
    assert ended.status == 0 and "out: 3 of 6 shards are finished already" in ended.err
    assert numbers == [3, 4, 5]
    assert contents("out") == whole
    assert start().status == 0 and numbers == [3, 4, 5], "a finished job is not predicted again"
    assert contents("out") == whole


def test_a_damaged_or_foreign_shard_is_predicted_again(start, whole, monkeypatch):
    assert start().status == 0
    Path("out/part-00001.parquet").write_bytes(whole["part-00001.parquet"][:-9])
    shutil.copy("out/part-00000.parquet", "out/part-00003.parquet")
    Path("out/part-00005.parquet").unlink()
    Path("out/.part-00002.parquet.abc").write_bytes(b"of a killed worker")
    numbers = predicted(monkeypatch)
    assert start().status == 0
    assert numbers == [1, 3, 5] and contents("out") == whole


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (["--shard-rows", "4"], "another --shard-rows"),
        (["--input", "in/a.jsonl"], "another input"),
        (["--model"], "another model"),
        ("text", "another input"),
        ("file", "another input"),
    ],
)
def test_shards_of_another_job_are_refused_and_kept(start, trained, tmp_path, change, wanted):
    assert start().status == 0
    before = contents("out")
    if change == ["--model"]:
        shutil.copytree(trained, "other")
        (tmp_path / "other" / "config.json").write_text((trained / "config.json").read_text() + " ")
        change = ["--model", "other"]
    elif change == "text":
        path = Path("in/b.jsonl")
        path.write_text(path.read_text().replace("won", "own"))
    elif change == "file":
        shutil.copy("in/b.jsonl", "in/c.jsonl")
    ended = start(*(change if isinstance(change, list) else ()))
    assert ended.status == 2
    said = f"error: out: holds shards of another job ({wanted}); give another --output, or remove this folder"
    assert ended.err.splitlines()[-1].startswith(said)
    assert contents("out") == before


def test_a_folder_with_other_files_is_refused(start):
    Path("out").mkdir()
    Path("out/thesis.txt").write_text("mine")
    ended = start()
    assert ended.err.endswith("error: out: holds other files (thesis.txt); give another --output\n")
    assert ended.status == 2 and contents("out") == {"thesis.txt": b"mine"}


def test_a_job_that_finished_no_shard_leaves_nothing_and_may_be_another_one(start, monkeypatch):
    def full(shard):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/part-00000.parquet")

    with monkeypatch.context() as patch:
        predicted(patch, full)
        assert start().status == 2
    assert not Path("out").exists()
    assert start("--shard-rows", "25").status == 0


def test_a_full_disk_is_one_line_and_keeps_what_is_finished(start, whole, monkeypatch):
    real, written = atomic_files.disk, []

    def disk(kind, path, call, *arguments):
        written.append(kind)
        if kind == "write" and "part-00002" in path.name:
            call(arguments[0][:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return real(kind, path, call, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(atomic_files, "disk", disk)
        ended = start()
    assert ended.status == 2 and "write" in written
    last = ended.err.splitlines()[-1]
    assert "no space left on device; 2 of 6 shards are finished, and the same command continues" in last
    assert sorted(contents("out")) == ["_job.json", "part-00000.parquet", "part-00001.parquet"]
    assert start().status == 0 and contents("out") == whole


def test_an_input_that_changes_meanwhile_ends_the_job(start, monkeypatch):
    def change(shard):
        if shard == 4:
            with open("in/b.jsonl", "a") as file:
                file.write('{"text": "late"}\n')

    predicted(monkeypatch, change)
    ended = start()
    assert ended.status == 2
    assert "error: in/b.jsonl: was changed while it was read; start again" in ended.err.splitlines()[-1]
    assert sorted(contents("out"))[-1] == "part-00003.parquet"


def test_a_row_that_can_not_be_predicted_does_not_fail_the_others(start, whole, monkeypatch):
    real = Predictor.predict_examples

    def predict(predictor, examples, *arguments):
        if any("vote 3 " in example.text for example in examples):
            raise RuntimeError("no such kernel")
        return real(predictor, examples, *arguments)

    monkeypatch.setattr(Predictor, "predict_examples", predict)
    assert start().status == 0
    rows = rows_of("out")
    (failed,) = [row for row in rows if row["error"] and "kernel" in row["error"]]
    assert (failed["file"], failed["line"]) == ("in/a.jsonl", 4)
    assert failed["error"] == "in/a.jsonl:4: can't be predicted: RuntimeError: no such kernel"
    assert sum(row["error"] is None for row in rows) == 22


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        (["--input", "*.none"], "*.none: no file matches; "),
        (["--input", "-"], "--engine needs --input, a folder or a pattern, and --output, a folder"),
        (["--embeddings", "x.npy"], "--embeddings does not go with --engine"),
        (["--soft-targets"], "--soft-targets does not go with --engine"),
        (["--workers", "2"], "--workers is for --engine ray"),
        (["--shard-rows", "0"], "--shard-rows 0: must be 1 or more"),
        (["--model", "nowhere"], "no folder nowhere"),
        (["--accuracy", "0.9"], "has no thresholds for classes; training sets them on a data.dev"),
        (["--output", "in"], ".jsonl: is read too; write to another file"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(start, tmp_path, more, wanted):
    before = sorted(tmp_path.rglob("*"))
    ended = start(*more)
    assert ended.status == 2
    assert wanted in ended.err.splitlines()[-1] and ended.err.count("error: ") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_the_options_of_large_inputs_need_an_engine(shell, trained):
    ended = shell(task_5, "predict", "anna", "--model", trained, "--workers", "2")
    wanted = "error: --workers is about large inputs: give --engine ray or --engine local\n"
    assert (ended.status, ended.err) == (2, wanted)


def test_two_jobs_can_not_use_one_folder(start, monkeypatch):
    Path("out").mkdir()
    with atomic_files.lock(Path("out"), "is mine"):
        ended = start()
    assert ended.status == 2 and ended.err.endswith("error: out: another process writes into it\n")


def test_without_pyarrow_the_job_ends_before_any_work(start, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    ended = start()
    wanted = "error: --engine needs pyarrow: pip install -r requirements-parquet.txt\n"
    assert (ended.status, ended.err) == (2, wanted) and not Path("out").exists()
