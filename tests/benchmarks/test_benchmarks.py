"""The benchmarks of processes, kills, checkpoints, predictions and serving."""

import argparse
import copy
import shutil
import subprocess
import sys

import numpy as np
import pytest
from benchmark_runs import SHORT, bench, corpus  # noqa: F401 - fixtures
from conftest import ROOT

from benchmarks import attack, checkpoints, crash, predict_speed, serve, small_batches
from benchmarks.processes import measured
from model import MultiTaskTransformer
from multitask.common.errors import InputError
from multitask.export import exporter
from multitask.export.onnx_graph import export_graph


def test_an_error_has_the_message_of_the_process_that_failed(tmp_path):
    code = (
        "import benchmarks, sys; print('a note\\nerror: the reason\\nand more', file=sys.stderr); sys.exit(2)"
    )
    with pytest.raises(InputError, match="^the reason\nand more$"):
        measured([sys.executable, "-c", code], ROOT, tmp_path)


def test_peak_memory_is_that_of_the_measured_process_alone(tmp_path):
    # in its own process: the memory of the tests would count for the processes that they start
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
def test_killed_runs_are_counted_as_resumed_and_equal(tmp_path, kind, counts):
    (tmp_path / "stub.py").write_text(STUB)
    begin = [sys.executable, str(tmp_path / "stub.py"), kind]
    contender = crash.Contender(begin, [*begin, "again"], "saved-*", "weights")
    arguments = argparse.Namespace(kills=3, sentences=1, epochs=1)
    result = crash.attempt(contender, tmp_path / "runs", arguments)
    assert tuple(result[key] for key in ("killed", "resumed", "equal")) == counts
    assert result["failures"] == (["no such file"] * 3 if kind == "broken" else [])
    assert list((tmp_path / "runs").iterdir()) == [tmp_path / "runs/alone"]


def test_a_checkpoint_has_the_bytes_of_weights_and_optimizer(tiny, corpus, bench):  # noqa: F811
    sizes = ["model.num_classes_task_a=null", "model.num_labels_task_b=null"]
    splits = [f"data.{split}={corpus / split}.jsonl" for split in ("train", "dev", "test")]
    words = ["--rounds=1", f"--backbone={tiny}", *SHORT, *sizes, *splits]
    record = bench(checkpoints, *words).json
    # weights, two moments and best weights of the trained parts: occurring words, 3 layers, 2 heads
    assert record["megabytes"] == pytest.approx(4 * 4 * 32_000 / 1e6, rel=0.3)


def test_a_model_that_a_pipeline_can_not_load_is_refused(trained, tmp_path, shell):
    ended = shell(predict_speed, "--corpus", tmp_path, "--model", trained)
    assert ended.status == 2 and "train one with model.token_head=linear" in ended.err


def test_table_and_record_of_prediction_speed_agree(trained, tmp_path, bench, monkeypatch):  # noqa: F811
    linear = tmp_path / "linear"
    fields = {"token_head": "linear", "ignore_mismatched_sizes": True}
    MultiTaskTransformer.from_pretrained(trained, **fields).save_pretrained(linear)
    shutil.copy(trained / "tokenizer.json", linear)
    graphs = []

    def export_once(model):  # exporting takes ten seconds; both exports are of the same model
        graphs[:] = graphs or [export_graph(model)]
        return copy.deepcopy(graphs[0])

    monkeypatch.setattr(exporter, "export_graph", export_once)
    test = shutil.copy(trained.parent.parent / "rows.jsonl", tmp_path / "test.jsonl")
    words = ["--corpus", tmp_path, "--model", linear, "--rounds", 1, "--large", 60, "--starts", 1]
    ended = bench(predict_speed, *words)
    record, (head, _, *rows) = ended.json, ended.tables[0]
    speeds = record["sentences_per_second"]
    assert record["sentences"] == 3 * len(test.read_text().splitlines())
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
    assert [run["sentences"] for run in record["from_a_file"].values()] == [record["sentences"], 60]


def test_table_and_record_of_small_batches_agree(trained, bench):  # noqa: F811
    words = ["--data", trained.parent.parent / "rows.jsonl", "--sizes", 1, 12, "--rounds", 3, "--model"]
    ended = bench(small_batches, *words, trained)
    times = ended.json["milliseconds"]
    assert {size: {mode: len(ms) for mode, ms in modes.items()} for size, modes in times.items()} == {
        "1": {"packed": 3, "padded": 3},
        "12": {"packed": 3, "padded": 3},
    }
    for (size, packed, padded, ratio), modes in zip(ended.tables[0][2:], times.values()):
        medians = [float(np.median(ms)) for ms in modes.values()]
        assert (packed, padded) == tuple(f"{median:.1f}" for median in medians) and size in times
        assert ratio == f"{medians[1] / medians[0]:.2f}"


def test_table_and_record_of_the_load_on_the_server_agree(trained, bench):  # noqa: F811
    words = ["--model", trained, "--data", trained.parent.parent / "rows.jsonl", "--clients", 4]
    ended = bench(serve, *words, "--seconds", 0.3, "--rounds", 2, "--starts", 1)
    record, (head, _, *rows) = ended.json, ended.tables[0]
    closed, half = record["closed_loop"], record["open_loop"]
    loads = {**closed, "batches, half the load": half}
    assert [row[0] for row in rows] == list(loads)
    for row, load in zip(rows, loads.values()):
        cells = dict(zip(head, row))
        assert cells["requests/s"] == f"{np.median(load['rate']):,.0f} ({max(load['rate']):,.0f})"
        assert cells["p95"] == f"{load['milliseconds']['p95']:.1f} ms"
        assert len(load["rate"]) == 2 and min(load["cpu_milliseconds_a_request"].values()) >= 0
    assert record["sentences"] == 8
    peak, single = (np.median(load["rate"]) for load in closed.values())
    assert record["ratio"] == pytest.approx(peak / single, abs=0.01)
    # two rounds of Poisson arrivals
    assert half["requests"] == pytest.approx(peak / 2 * 0.6, abs=5 * (peak / 2 * 0.6) ** 0.5)
    assert min(*record["start_seconds"]["predict"], *record["megabytes"].values()) > 0


def test_table_and_record_of_the_attacks_agree(trained, bench):  # noqa: F811
    words = ["--model", trained, "--data", trained.parent.parent / "rows.jsonl", "--seconds", 0]
    ended = bench(attack, *words, "--only", "large_header,kill_engine")
    results, (head, _, *rows) = ended.json["results"], ended.tables[0]
    assert list(results) == ["none", "large_header", "kill_engine"] and rows[0][0] == "none"
    for row, result in zip(rows, results.values(), strict=True):
        cells = dict(zip(head, row))
        assert cells["slowest"] == f"{result['health']['slowest']:.0f} ms" and cells["wrong"] == "0"
        assert result["health"]["p50"] <= result["health"]["p99"] <= result["health"]["slowest"]
    assert rows[1][1] == str(sum(results["large_header"]["outcomes"].values()))
    assert results["kill_engine"]["outcomes"] == {"replaced": 1} and ended.json["lines_of_log"] == 2
