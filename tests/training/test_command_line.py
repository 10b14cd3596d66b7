"""The command line of task_4.py: checks, help and bad input."""

import os
import signal

import pytest
import torch
from task_4_runs import metrics

import task_4


def test_labels_missing_from_train_cause_a_warning_and_score_as_wrong(shell, settings_for, rows, write_rows):
    dev = write_rows("dev.jsonl", [*rows, {"tokens": ["a"], "tags": ["B-GPE"], "label": "weather"}])
    ended = shell(task_4, *settings_for, f"data.dev={dev}")
    assert ended.status == 0
    assert "warning: dev has the class 'weather' 1 times, train never: each is scored as wrong" in ended.err
    assert "warning: dev has the type 'GPE' 1 times" in ended.err


def test_rows_that_are_skipped_are_reported(shell, settings_for, rows, write_rows):
    path = write_rows("some.jsonl", [*rows, {"tokens": ["a", "b"], "tags": ["O"]}])
    ended = shell(task_4, *settings_for, f"data.train={path}", "data.on_bad_row=skip", "--check")
    assert ended.status == 0
    assert f"{path}:9: 2 tokens, but 1 tags" in ended.err
    assert "train: 8 rows used, 1 skipped" in ended.out


def test_check_prints_the_data_and_trains_nothing(shell, settings_for, tmp_path):
    before = sorted(tmp_path.iterdir())
    out = shell(task_4, "--check", *settings_for, "model.max_length=8", "model.stride=2").out
    assert "classes: politics 3, sports 4, none 1" in out
    assert "entities: LOC 3, PER 5; 1 rows not annotated" in out
    assert "dev: 8 rows are also in train" in out
    assert "1 rows in several windows" in out
    assert sorted(tmp_path.iterdir()) == before


def test_help_lists_every_key(shell):
    out = shell(task_4, "--help").out
    assert "training.head_learning_rate = 0.001" in out
    assert "model.offline_backbone = all-MiniLM-L6-v2" in out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["training.lr=1"], "did you mean training.learning_rate?"),
        (
            ["model.num_classes_task_a=3"],
            "model.num_classes_task_a is 3, but the data has 2 classes: politics, sports",
        ),
        (
            ["model.num_labels_task_b=4"],
            "model.num_labels_task_b is 4, but the data has 3 tags under IO: O, LOC, PER",
        ),
        (["data.tag_scheme=BIO"], "the data has 5 tags under BIO"),
        (["data.train=nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["data.dev=[nowhere.jsonl, broken.jsonl]"], "broken.jsonl:2: not JSON"),
        (
            ["data.test=lengths.jsonl"],
            "lengths.jsonl:1: 2 tokens, but 1 tags\n(data.on_bad_row=skip trains without",
        ),
        (["data.train=empty.jsonl"], "empty.jsonl: the file has no rows"),
        (["data.train=classes.jsonl"], "no row of data.train has an entity; training.task=task_a"),
        (["data.train=classes.jsonl", "training.task=task_b"], "no row of data.train has an entity"),
        (["data.dev=classes.jsonl", "training.task=task_b"], "data.dev has no annotation of task_b"),
        (["device=tpu"], "a device is auto, cpu, mps, cuda or cuda:1"),
        (["model.freeze_task_a=true", "model.freeze_task_b=true"], "nothing is left to train"),
        (
            ["model.freeze_layers=9", "model.freeze_backbone=false"],
            "freeze_layers is 9, but the encoder has 3 layers",
        ),
        (["model.max_length=100"], "model.max_length is 100, but the encoder has 64 positions"),
        (["model.backbone=runs/no/model"], "no folder runs/no/model"),
        (["model.backbone=."], "no config.json"),
        (["output_dir=taken"], "taken is not empty"),
        (["output_dir=empty.jsonl"], "empty.jsonl is a file"),
        (["--config=nowhere.yml"], "nowhere.yml: no such file"),
        (["--resume"], "--resume: there is no run in runs"),
        (["--resume", "taken"], "taken/config.yml"),
        (["--resume=nowhere"], "nowhere is not the folder of a run: it has no config.yml"),
        (["--again"], "unrecognized arguments: --again"),
    ],
)
def test_bad_input_gives_one_line_and_writes_nothing(shell, settings_for, tmp_path, arguments, reason):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/config.yml").write_text("")
    for name, text in (
        ("broken.jsonl", '{"text": "a"}\n{"text": \n{"text": "b"}\n'),
        ("lengths.jsonl", '{"tokens": ["a", "b"], "tags": ["O"]}\n'),
        ("empty.jsonl", ""),
        ("classes.jsonl", '{"text": "a", "label": "x"}\n'),
    ):
        (tmp_path / name).write_text(text)
    before = sorted(tmp_path.rglob("*"))
    ended = shell(task_4, *settings_for, *arguments)
    assert ended.status == 2
    assert reason in ended.err
    assert "Traceback" not in ended.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_without_cuda_the_run_uses_the_cpu_and_warns(shell, settings_for):
    ended = shell(task_4, *settings_for, "device=cuda")
    assert ended.status == 0
    assert "CUDA is not available: using the CPU" in ended.err
    assert ended.out.startswith("Using device: cpu")


def test_the_same_process_can_stop_and_resume_a_run(shell, settings_for, monkeypatch):
    real, steps = task_4.gradients, iter([0, signal.SIGTERM])

    def gradients(*arguments):
        real(*arguments)
        if number := next(steps, 0):
            os.kill(os.getpid(), number)

    monkeypatch.setattr(task_4, "gradients", gradients)
    assert shell(task_4, *settings_for, "training.num_epochs=2").status == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    ended = shell(task_4, "--resume=run")
    assert ended.status == 0, ended.err
    assert "Resuming run after step 2, 2 of epoch 1" in ended.out
    assert [row.get("epoch") for row in metrics()] == [1, 2, None]
