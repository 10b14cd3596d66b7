"""The tables of nearest_sentences.py, speedups.py, gpu.py and distil.py, from figures that can be checked by
hand."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

from benchmarks import distil, gpu, nearest_sentences, speedups
from benchmarks.names import DEFAULTS, OURS, TUNED
from multitask.common.errors import InputError


def test_disagreement_is_counted_apart_for_right_and_wrong_predictions():
    nearest = np.array([list("aaabb"), list("bbbaa"), list("bbbbb"), list("aabbb")])
    predicted, classes = np.array(list("aaba")), np.array(list("aabb"))
    figures = nearest_sentences.compare(nearest, predicted, classes)
    assert figures == {
        "sentences": 4,
        "wrong": 1,
        "accuracy": 0.75,
        "nearest": pytest.approx(2 / 4),  # rows 1 and 3: the nearest sentence has the annotated class
        "chance": 0.5,
        "disagree_right": pytest.approx(1 / 3),  # row 2
        "disagree_wrong": 1.0,  # row 4
    }
    assert "| run_1 |              4 |    0.750 |" in nearest_sentences.table({"runs/run_1": figures})


def test_a_speedup_is_the_median_of_ratios_within_rounds():
    rounds = dict.fromkeys(speedups.VARIANTS, [1.0, 10.0, 2.0])
    rounds["both"] = [2.0, 15.0, 1.0]  # ratios 2, 1.5, 0.5; the ratio of the medians would be 1
    table = speedups.table({"corpus/": {"rounds": rounds}})
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert ["both", "2.00", "1.50"] in cells and ["neither", "2.00", "1.00"] in cells


def test_a_gpu_is_compared_with_the_faster_trainer_after_the_first_epoch():
    run = {"test": {"accuracy": 0.5, "entity_f1": None}, "peak_gpu_mib": 1000.0}
    step = {"ms": 5.0, "host_ms": 1.0, "kernels": 1200.0, "kernel_ms": 4.0, "share_of_matrix_rate": 0.05}
    results = {
        OURS: {**run, "seconds": [9.0, 1.0, 2.0, 0.5], "step": step},
        DEFAULTS: {**run, "seconds": [1.0, 4.0, 4.0, 4.0]},
        TUNED: {**run, "seconds": [1.0, 3.0, 3.0, 3.0]},
    }
    record = {
        "sentences": 100,
        "training": {"32": results},
        "frozen": {n: results[n] for n in (OURS, DEFAULTS)},
    }
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in gpu.training_table(record).splitlines()
    ]
    assert rows[2] == ["32", OURS, "9.00, 1.00, 2.00, 0.50", "100", "3.00", "1,000", "0.5000", "–"]
    assert [row[4] for row in rows[2:]] == ["3.00", "0.75", "1.00", "4.00", "1.00"]
    assert "| 32    |      5.00 |           1.00 |   1,200 |" in gpu.step_table(record)


def test_a_student_is_shown_with_what_it_learned_from(tmp_path):
    result = {"accuracy": 0.5, "entity_f1": 0.25, "exact_match": 0.125}
    better = {"accuracy": 0.7, "entity_f1": 0.35, "exact_match": 0.125}
    record = {
        "labelled": 1000,
        "unlabelled": 3000,
        "results": {"teacher": [result, better], "3 alone": [result, result], "3 taught": [better, better]},
        "bytes": {"teacher": 90_000_000, "3 alone": 69_000_000, "3 taught": 69_000_000},
        "texts_per_second": {"teacher": [1.0, 9.0, 100.0], "3 alone": [20.0], "3 taught": [1234.0]},
    }
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in distil.table(record).splitlines()]
    assert rows[2] == [
        "teacher, 6 layers",
        "1,000 labelled",
        "0.600 ± 0.141",
        "0.300 ± 0.071",
        "0.125 ± 0.000",
        "90",
        "9",
    ]
    assert rows[4][:3] == [
        "student, 3 layers",
        "1,000 labelled, 3,000 unlabelled, the teacher",
        "0.700 ± 0.000",
    ]
    assert rows[4][-2:] == ["69", "1,234"]
    (tmp_path / "train.jsonl").write_text("".join(f'{{"text": "t{n}", "label": "x"}}\n' for n in range(9)))
    (tmp_path / "dev.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    (tmp_path / "out").mkdir()
    arguments = Namespace(corpus=str(tmp_path), labelled=3, unlabelled=4, dev=1)
    files = distil.write_parts(arguments, tmp_path / "out", 0)
    labelled, unlabelled = (list(map(json.loads, Path(file).read_text().splitlines())) for file in files)
    assert [len(labelled), len(unlabelled)] == [3, 4]
    assert all(row.keys() == {"text"} for row in unlabelled) and all(row["label"] == "x" for row in labelled)
    assert len({row["text"] for row in labelled + unlabelled}) == 7
    assert (tmp_path / "out" / "dev.jsonl").read_text() == '{"text": "a"}\n'


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_gpu_benchmark_needs_a_gpu(shell):
    corpus = ["--corpus", str(ROOT / "corpus")]
    ended = shell(gpu, *corpus)
    message = "this machine has no GPU that torch can use; train_speed.py measures a CPU"
    assert (ended.status, ended.err) == (2, f"error: {message}\n")
    ended = shell(gpu, *corpus, "--batch-sizes=32,x")
    assert (ended.status, ended.err.startswith("error: --batch-sizes is 32,x; ")) == (2, True)


def test_a_kept_student_with_other_settings_is_refused(tmp_path):
    run = tmp_path / "teacher"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"test": {"accuracy": 1.0}}\n')
    for settings in (None, ["training.seed=0"]):
        if settings:
            (tmp_path / "teacher.json").write_text(json.dumps(settings))
        with pytest.raises(InputError, match="teacher was trained with other settings; use another folder"):
            distil.train(run, ["training.seed=1"])
    distil.train(run, ["training.seed=0"])
