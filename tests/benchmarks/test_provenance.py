"""The provenance of records: their commands, seeds, versions and machines, and records of finished runs."""

import importlib
import json
import re
import shlex
import sys

import numpy as np
import pytest
from conftest import ROOT

from benchmarks import provenance, scores, tables
from multitask.common.errors import InputError
from multitask.config.help_text import flatten_settings, render_config
from multitask.config.loading import load_settings, split_overrides
from multitask.training.checkpoint import Checkpoints

RECORDS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_has_its_provenance(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    assert re.match(r"python (benchmarks/\w+|task_4)\.py\b", record["command"])
    assert (ROOT / record["command"].split()[1]).is_file()
    assert all(isinstance(seed, int) for seed in record["seeds"])
    assert record["versions"]
    assert record.keys() >= {"python"}
    assert record["hardware"].keys() == {"cpu", "flags", "threads"}
    assert record["hardware"]["cpu"]
    assert record["hardware"]["threads"] > 0


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_contains_no_absolute_path(path):
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"""(?<![\w.:~/-])(?:/|~/|[A-Z]:\\)\w[^"]*""", text) == []


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_the_command_of_a_record_has_valid_settings(path, shell):
    _, script, *words = shlex.split(json.loads(path.read_text(encoding="utf-8"))["command"])
    overrides, _ = split_overrides(words)
    load_settings(ROOT / "config.yml", [word.replace("=S", "=0") for word in overrides])
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    if hasattr(module, "arguments_of"):  # it looks at settings before it refuses the limit
        refused = shell(module, *words, "--corpus", ROOT / "corpus", "--limit", 0)
        assert refused == (2, "", "error: --limit is 0; it must be 1 or more\n")


def record_of(command, seeds=(0,), threads=2, python="3.11.7", **versions):
    hardware = {"cpu": "Intel(R) Xeon(R) Processor @ 2.80GHz", "flags": None, "threads": threads}
    return {
        "command": command,
        "seeds": seeds and list(seeds),
        "versions": versions,
        "python": python,
        "hardware": hardware,
    }


def test_shared_facts_of_records_are_written_once_and_others_after_the_command():
    one = record_of("python a.py", (0, 1, 2), torch="2.13.0")
    assert provenance.made_by([one]) == (
        "_Made by `python a.py`; seeds 0–2; Intel Xeon 2.80 GHz, 2 threads; torch 2.13.0, Python 3.11.7._"
    )
    other = record_of("python b.py", (0, 2), 1, torch="2.13.0", numpy="2.4.6")
    assert provenance.made_by([one, other]) == (
        "_Made by A: `python a.py` (seeds 0–2, 2 threads), B: `python b.py` (seeds 0, 2, 1 thread, "
        "numpy 2.4.6); Intel Xeon 2.80 GHz; torch 2.13.0, Python 3.11.7._"
    )
    assert (
        provenance.made_by([record_of("python c.py", None, None, None)])
        == "_Made by `python c.py`; Intel Xeon 2.80 GHz._"
    )


def test_a_command_in_a_record_contains_no_absolute_path(monkeypatch):
    words = [
        "--corpus",
        "/home/me/snips",
        f"--model={ROOT}/runs/a",
        "--output",
        "/home/me/x.json",
        "--rows",
        "1",
        "2",
    ]
    words += ["data.train=[/home/me/snips/train.jsonl, b.jsonl]", "--output=/y.json"]
    monkeypatch.setattr(sys, "argv", [str(ROOT / "benchmarks/scale.py"), *words])
    assert provenance.provenance([], 1, ("numpy",))["command"] == (
        "python benchmarks/scale.py --corpus snips --model=runs/a --rows 1 2 "
        "'data.train=[snips/train.jsonl, b.jsonl]'"
    )


def test_the_spread_over_seeds_is_the_sample_standard_deviation():
    values = [0.947, 0.95, 0.952]
    assert tables.spread(values, ".6f") == f"{np.mean(values):.6f} ± {np.std(values, ddof=1):.6f}"
    assert tables.spread(values[:1], ".4f") == "0.9470"


@pytest.fixture
def finished(tmp_path):
    """Make the folder of a run with this seed and test score; with `threads`, it has a checkpoint."""

    def make(seed, score, *overrides, threads=None):
        folder = tmp_path / f"run-{seed}{len(overrides)}"
        folder.mkdir()
        words = ["data.test=corpus/test.jsonl", *overrides, f"training.seed={seed}", f"output_dir={folder}"]
        (folder / "config.yml").write_text(render_config(load_settings(None, words)))
        rows = [{"epoch": 1, "dev": None}, {"test": {"accuracy": score, "entity_f1": None}}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if threads:
            machine = {
                "threads": threads,
                "python": "3.11.0",
                "torch": "2.0",
                "transformers": "5.0",
                "numpy": "2",
            }
            Checkpoints(folder / "checkpoints").save(1, {"origin": {"machine": machine}}, [])
        return folder

    return make


def test_runs_that_differ_by_seed_are_one_record_with_a_command_that_repeats_them(finished):
    chosen = ["training.learning_rate=1e-4", "model.freeze_backbone=false", "data.train=[a b.jsonl, c.jsonl]"]
    record = scores.collect([finished(seed, 0.9 + seed / 100, *chosen, threads=3) for seed in (2, 0, 1)])
    assert (record["seeds"], record["corpus"]) == ([0, 1, 2], "corpus")
    assert record["test"] == {"accuracy": [0.9, 0.91, 0.92], "entity_f1": [None] * 3}
    assert record["versions"] == {"torch": "2.0", "transformers": "5.0"}
    assert (record["python"], record["hardware"]["threads"]) == ("3.11.0", 3)
    python, script, *words = shlex.split(record["command"].replace("seed=S", "seed=1"))
    assert (python, script) == ("python", "task_4.py")
    assert flatten_settings(load_settings(ROOT / "config.yml", words)) == flatten_settings(
        load_settings(None, [*chosen, "training.seed=1"])
    )


def test_runs_that_differ_in_more_than_the_seed_are_an_error(finished):
    zero = finished(0, 0.9)
    with pytest.raises(InputError, match=r"differ in more than the seed: training.batch_size 16 and 8$"):
        scores.collect([zero, finished(1, 0.9, "training.batch_size=8")])
    with pytest.raises(InputError, match="^training.seed is 0 in more than one run$"):
        scores.collect([zero, zero])
    with pytest.raises(InputError, match="^the runs differ in threads or versions: "):
        scores.collect([zero, finished(2, 0.9, threads=1)])
    (zero / "metrics.jsonl").write_text('{"epoch": 1, "dev": null}\n{"te')
    with pytest.raises(InputError, match="no test scores: the run is not finished"):
        scores.collect([zero])
