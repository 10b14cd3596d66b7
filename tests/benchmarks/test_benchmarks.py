"""The comparisons with transformers.Trainer: what they count, measure and print."""

import argparse
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import crash
from benchmarks.contenders import Joint, make_trainer
from benchmarks.flops import Shape, Work, training_flops
from benchmarks.processes import measured
from model import MultiTaskTransformer
from multitask.common.errors import InputError
from multitask.config.loading import load_settings
from multitask.encoders.pretrained import load_model
from multitask.training.preparation import prepare

SHORT = ["model.max_length=32", "model.stride=8"]


@pytest.fixture
def corpus(write_rows, rows, tmp_path):
    """A folder with three splits of rows that have both annotations."""
    both = [row for row in rows if "label" in row and ("tags" in row or "entities" in row)]
    for split, times in (("train", 4), ("dev", 1), ("test", 1)):
        write_rows(f"{split}.jsonl", both * times)
    return tmp_path


def bench(script: str, *words: str) -> SimpleNamespace:
    """Run a benchmark as the shell does. Its tables are lists of rows of cells, `json` its last line."""
    ended = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / script, *map(str, words)], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    *lines, last = ended.stdout.splitlines()
    tables, previous = [], ""
    for line in lines:
        if line.startswith("|"):
            tables += [] if previous.startswith("|") else [[]]
            tables[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        previous = line
    return SimpleNamespace(tables=tables, json=json.loads(last))


def test_training_speed_is_compared_and_table_and_record_agree(tiny, corpus, tmp_path):
    words = ["--backbone", tiny, "--limit", 12, "--rounds", 1, "--batch-size", 4, "--freeze-layers", 1]
    words += [
        "--trainer-rates",
        "2e-3,5e-3",
        "training.learning_rate=1e-3",
        "training.head_learning_rate=4e-3",
    ]
    ended = bench("train_speed.py", "--corpus", corpus, *words, *SHORT, "--output", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == ended.json
    results = ended.json["results"]
    speed, settings, *_ = ended.tables
    head, _, *rows = speed
    assert [row[0] for row in rows] == list(results)
    assert list(results) == ["this project", "Trainer", "Trainer, tuned", "this project, nothing frozen"]
    for row in rows:
        cells, result = dict(zip(head, row)), results[row[0]]
        assert result["sentences_per_second"] == pytest.approx(12 / sum(result["rounds"][0]["seconds"]))
        assert cells["sentences/s"] == f"{result['sentences_per_second']:,.1f}"
        for name in ("Trainer", "Trainer, tuned"):
            ratio = result["sentences_per_second"] / results[name]["sentences_per_second"]
            assert cells[f"× {name}"] == f"{ratio:.3f}" == f"{result['ratio'][name]:.3f}"
    seen = {row[0]: row[1:] for row in settings}
    assert seen["rate of the encoder"] == ["0.001", "0.002", "0.002", "0.001"]
    assert seen["rate of the heads"] == ["0.004", "0.005", "0.005", "0.004"]
    assert seen["attention dropout"] == ["0", "0 and 0.1", "0 and 0.1", "0"]
    assert seen["dropout in the encoder"] == ["0 and 0.1"] * 3 + ["0.1"]
    assert seen["order"] == ["LengthGroupedSampler", "random", "group_by_length", "LengthGroupedSampler"]
    work = [results[name]["gflop_per_epoch"] for name in results]
    assert work[0] == work[1] == work[2] < work[3]


def test_the_time_to_a_score_is_compared(tiny, corpus):
    ended = bench(
        "time_to_score.py", "--corpus", corpus, "--backbone", tiny, "--target", 0, "--batch-size", 4, *SHORT
    )
    slow, *_ = results = list(ended.json["results"].values())
    head, _, *rows = ended.tables[0]
    assert [row[0] for row in rows] == list(ended.json["results"])
    for row, result in zip(rows, results):
        assert row[head.index("F1 ≥ 0")] == "yes"
        assert row[-3] == f"{slow['training_seconds'] / result['training_seconds']:.3f}"
    rates = [(r["settings"]["rate of the encoder"], r["settings"]["rate of the heads"]) for r in results]
    assert rates == [("5e-05", "5e-05"), ("0.0002", "0.002"), ("0.0002", "0.002")]


@pytest.mark.parametrize("script", ["train_speed.py", "time_to_score.py"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--corpus", "missing"], "error: --corpus: missing has no train.jsonl\n"),
        (["--corpus", ROOT / "corpus", "trainig.seed=1"], "error: command line: trainig.seed=1: unknown key"),
        (
            ["--corpus", ROOT / "corpus", "device=cpu"],
            "error: device=cpu: the options of this benchmark set it\n",
        ),
    ],
)
def test_what_cant_be_compared_ends_in_one_line(script, words, said, tmp_path):
    words = [*words, "--target=0.5"] if script == "time_to_score.py" else words
    command = [sys.executable, ROOT / "benchmarks" / script, *words]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert ended.stderr.startswith(said)


@pytest.mark.parametrize("frozen", [None, 1, 2, 3])
def test_counted_products_are_those_that_torch_counts(tiny, frozen):
    sizes = {"num_classes_task_a": 5, "num_labels_task_b": 7}
    model = load_model(MultiTaskTransformer, tiny, new_heads=True, **sizes).train()
    model.set_attn_implementation("eager")
    model.freeze(layers=frozen or 0)
    B, T = 4, 9
    ids, mask = torch.randint(5, 50, (B, T)), torch.ones(B, T, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        Joint(model)(ids, mask, torch.randint(5, (B,)), torch.randint(7, (B, T)))["loss"].backward()
    shape = Shape(hidden=32, intermediate=64, layers=3, classes=5, tags=7)
    assert training_flops(shape, Work(B, B * T, B * T * T), frozen) == counter.get_total_flops()


def test_trainer_really_groups_this_data_by_length(settings_for, tmp_path, write_rows):
    rows = [
        {"tokens": ["vote"] * (1 + i % 16), "tags": ["O"] * (1 + i % 16), "label": "ab"[i % 2]}
        for i in range(64)
    ]
    rows[0]["tags"] = ["B-LOC"]
    path = write_rows("lengths.jsonl", rows)
    data = [f"data.train={path}", "model.num_labels_task_b=2", "data.dev=null", "data.test=null"]
    settings = load_settings(ROOT / "config.yml", [*settings_for[1:], *data])
    prepared = prepare(settings)
    model = load_model(MultiTaskTransformer, prepared.backbone.folder, new_heads=True)
    cells = {}
    for order in ("random", "group_by_length"):
        trainer = make_trainer(
            model, prepared.corpora["train"], settings, tmp_path, train_sampling_strategy=order
        )
        shapes = [batch["input_ids"].shape for batch in trainer.get_train_dataloader()]
        assert sum(rows for rows, _ in shapes) == 64
        cells[order] = sum(rows * tokens for rows, tokens in shapes)
        assert trainer.data_collator.cells == cells[order]
        assert trainer.data_collator.tokens == prepared.corpora["train"].window_lengths.sum()
    assert cells["group_by_length"] < 0.8 * cells["random"]


def test_a_run_that_fails_says_its_own_words(tmp_path):
    code = "import sys; print('a note\\nerror: the reason\\nand more', file=sys.stderr); sys.exit(2)"
    with pytest.raises(InputError, match="^the reason\nand more$"):
        measured([sys.executable, "-c", code], ROOT, tmp_path)


def test_peak_memory_is_that_of_the_run_alone(tmp_path):
    # in a process of its own: what is started from here would count the memory of the tests as its own
    code = (
        "import benchmarks.train_speed, benchmarks.time_to_score, sys; from pathlib import Path\n"
        "from benchmarks.processes import measured\n"
        "assert 'torch' not in sys.modules\n"
        "for work in ('pass', 'x = b\"x\" * 300 * 2**20', 'pass'):\n"
        f"    print(measured([sys.executable, '-c', work], Path('.'), Path({str(tmp_path)!r})).memory)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    before, large, after = map(float, ended.stdout.split())
    assert large > 300
    assert max(before, after) < 100


STUB = """
import pathlib, random, sys, time
kind, resumed = sys.argv[1], len(sys.argv) > 2
if resumed and kind == "broken":
    sys.exit("no such file")
pathlib.Path("saved-1").mkdir(exist_ok=True)
time.sleep(0.0 if resumed else 0.5)
pathlib.Path("weights").write_text(str(random.random()) if resumed and kind == "other" else "1")
"""


@pytest.mark.parametrize(
    ("kind", "counts"), [("same", (3, 3, 3)), ("other", (3, 3, 0)), ("broken", (3, 0, 0))]
)
def test_killed_runs_are_counted_by_what_became_of_them(tmp_path, kind, counts):
    (tmp_path / "stub.py").write_text(STUB)
    begin = [sys.executable, str(tmp_path / "stub.py"), kind]
    contender = crash.Contender(begin, [*begin, "again"], "saved-*", "weights")
    arguments = argparse.Namespace(kills=3, sentences=1, epochs=1)
    result = crash.attempt(contender, tmp_path / "runs", arguments)
    assert tuple(result[key] for key in ("killed", "resumed", "equal")) == counts
    assert result["failures"] == (["no such file"] * 3 if kind == "broken" else [])
    assert list((tmp_path / "runs").iterdir()) == [tmp_path / "runs/alone"]


def test_the_cost_of_a_checkpoint_is_that_of_its_bytes(tiny, corpus):
    sizes = ["model.num_classes_task_a=null", "model.num_labels_task_b=null"]
    splits = [f"data.{split}={corpus / split}.jsonl" for split in ("train", "dev", "test")]
    words = ["--rounds=1", f"--backbone={tiny}", *SHORT, *sizes, *splits]
    record = bench("checkpoints.py", *words).json
    # weights, two moments and the best weights of what is trained: the occurring words, 3 layers, 2 heads
    assert record["megabytes"] == pytest.approx(4 * 4 * 32_000 / 1e6, rel=0.3)


def test_predictions_are_compared_with_pipelines_and_table_and_record_agree(exported, tmp_path):
    shutil.copy(exported.rows, tmp_path / "test.jsonl")
    words = ["--corpus", tmp_path, "--model", exported.model, "--rounds", 1, "--large", 60, "--starts", 1]
    ended = bench("predict_speed.py", *words)
    record, (head, _, *rows) = ended.json, ended.tables[0]
    speeds = record["sentences_per_second"]
    assert record["sentences"] == 3 * len(exported.rows.read_text().splitlines())
    assert [row[0] for row in rows] == list(speeds)
    for name, other in (("Predictor", "both pipelines"), ("embed", "sentence-transformers encode")):
        row = dict(zip(head, next(row for row in rows if row[0] == name)))
        assert row["beside"] == other
        assert float(row["times"]) == pytest.approx(speeds[name][0] / speeds[other][0], rel=0.01, abs=0.006)
    parts = [speeds[f"pipeline {task}"][0] for task in ("text-classification", "ner")]
    assert speeds["both pipelines"][0] == pytest.approx(1 / sum(1 / speed for speed in parts), rel=0.01)
    assert record["scores"]["ONNX float32"] == record["scores"]["Predictor"]
    seconds = record["seconds_of_a_round"]
    assert seconds["all"] == pytest.approx(seconds["reading"] + seconds["model"] + seconds["rest"], abs=1e-3)
    assert [found["sentences"] for found in record["from_a_file"].values()] == [record["sentences"], 60]


def test_small_batches_are_timed_both_ways_and_table_and_record_agree(trained):
    words = ["--data", trained.parent.parent / "rows.jsonl", "--sizes", 1, 12, "--rounds", 3, "--model"]
    ended = bench("small_batches.py", *words, trained)
    found = ended.json["milliseconds"]
    assert {size: {way: len(each) for way, each in ways.items()} for size, ways in found.items()} == {
        "1": {"packed": 3, "padded": 3},
        "12": {"packed": 3, "padded": 3},
    }
    for (size, packed, padded, ratio), ways in zip(ended.tables[0][2:], found.values()):
        medians = [float(np.median(each)) for each in ways.values()]
        assert (packed, padded) == tuple(f"{each:.1f}" for each in medians) and size in found
        assert ratio == f"{medians[1] / medians[0]:.2f}"


@pytest.mark.load
def test_load_on_the_server_is_measured_and_table_and_record_agree(trained):
    words = ["--model", trained, "--data", trained.parent.parent / "rows.jsonl", "--clients", 4]
    ended = bench("serve.py", *words, "--seconds", 0.3, "--rounds", 2, "--starts", 1)
    record, (head, _, *rows) = ended.json, ended.tables[0]
    closed, half = record["closed_loop"], record["open_loop"]
    found = {**closed, "batches, half the load": half}
    assert [row[0] for row in rows] == list(found)
    for row, seen in zip(rows, found.values()):
        cells = dict(zip(head, row))
        assert cells["requests/s"] == f"{np.median(seen['rate']):,.0f} ({max(seen['rate']):,.0f})"
        assert cells["p95"] == f"{seen['milliseconds']['p95']:.1f} ms"
        assert len(seen["rate"]) == 2 and min(seen["cpu_milliseconds_a_request"].values()) >= 0
    assert record["sentences"] == 8
    peak, single = (np.median(seen["rate"]) for seen in closed.values())
    assert record["ratio"] == pytest.approx(peak / single, abs=0.01)
    # two rounds of Poisson arrivals
    assert half["requests"] == pytest.approx(peak / 2 * 0.6, abs=5 * (peak / 2 * 0.6) ** 0.5)
    assert min(*record["start_seconds"]["predict"], *record["megabytes"].values()) > 0
