"""The tables of results: made from the records, which say what made them."""

import json
import re
import shlex
import shutil
import sys

import numpy as np
import pytest
from conftest import ROOT

from benchmarks import provenance, scores, tables, write_up
from multitask.common.errors import InputError
from multitask.config.help_text import flatten_settings, render_config
from multitask.config.loading import load_settings
from multitask.training.checkpoint import Checkpoints

RECORDS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
TYPED = {  # heads of the tables that hold no results
    "task": "README.md",
    "setting": "README.md",
    "place": "README.md",
    "what you see": "README.md",
    "you have": "task_3.md",
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of what the write-up reads and writes."""
    for folder in ("benchmarks/results", "pictures"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "docs").mkdir()
    for page in write_up.pages(ROOT):
        shutil.copy(ROOT / page, tmp_path / page)
    monkeypatch.setattr(write_up, "ROOT", tmp_path)
    return tmp_path


def test_every_table_and_picture_is_what_the_records_make():
    made, stale = write_up.write_up(ROOT)
    assert stale == []
    assert {path: path.read_bytes() for path in made} == made


@pytest.mark.parametrize("page", write_up.pages(ROOT))
def test_no_table_of_results_is_typed(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = [line for _, name, part in write_up.parts(page, text) if not name for line in part]
    heads = [before for before, line in zip(lines, lines[1:]) if re.fullmatch(r"[|:\- ]*-\|[|:\- ]*", line)]
    assert {head.split("|")[1].strip(): page for head in heads}.items() <= TYPED.items()


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_says_what_made_it(path):
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
def test_a_record_names_no_place_on_its_machine(path):
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"""(?<![\w.:~/-])(?:/|~/|[A-Z]:\\)\w[^"]*""", text) == []


def test_a_changed_record_is_noticed_and_written_and_nothing_else_changes(project, shell):
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    page = project / "docs/reliability.md"
    record = project / "benchmarks/results/crash.json"
    record.write_bytes(record.read_bytes().replace(b'"resumed": 11', b'"resumed": 12'))
    checked = shell(write_up, "--check")
    line = before[page].decode().splitlines().index("<!-- table: kills -->") + 1
    assert checked[:2] == (1, f"docs/reliability.md:{line}: table kills is not what benchmarks/results has\n")
    assert page.read_bytes() == before[page]
    assert shell(write_up) == (0, "", "docs/reliability.md: written\n")
    old, new = (text.splitlines() for text in (before[page], page.read_bytes()))
    (changed,) = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    assert re.sub(" +", " ", changed[1].decode()) == "| transformers.Trainer | 16 | 12 | 11 |"
    assert {path for path in before if path.read_bytes() != before[path]} == {record, page}
    assert shell(write_up, "--check") == (0, "", "")


def test_a_changed_picture_is_noticed(project, shell):
    path = project / "pictures/speed.svg"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"Sentence embeddings", b"Sentence embedding"))
    assert shell(write_up, "--check")[:2] == (1, "pictures/speed.svg is not what benchmarks/results has\n")
    assert shell(write_up).status == 0
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("reliability", "table: kills -->", "table: kill -->", r"there is no table kill; there are .*kills"),
        ("reliability", "<!-- table: kills -->\n", "", r"the end of a table that was not begun"),
        (
            "reliability",
            "<!-- end of table -->",
            "",
            r"the table kills has no end before docs/reliability\.md:\d+: ",
        ),
        ("results", "](../pictures/speed.svg)", "](pictures/speed.svg)", "no place for the picture: .*speed"),
    ],
)
def test_a_page_with_a_mark_that_is_wrong_is_not_written(project, shell, name, old, new, message):
    page = project / f"docs/{name}.md"
    page.write_text(page.read_text().replace(old, new, 1))
    (project / "benchmarks/results/scale.json").write_text(
        (project / "benchmarks/results/scale.json").read_text().replace("2216599", "9916599")
    )
    before = page.read_bytes()
    ended = shell(write_up)
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert re.match(rf"error: (docs/{name}\.md:\d+|README\.md, task_3\.md and docs/): {message}", ended.err)
    assert page.read_bytes() == before


def test_a_table_without_place_end_or_record_is_an_error(project, shell):
    page = project / "task_3.md"
    text = page.read_text()
    page.write_text(text + "<!-- table: kills -->\n")
    line = len(text.splitlines()) + 1
    assert shell(write_up).err == f"error: task_3.md:{line}: the table kills has no end: {write_up.END}\n"
    page.write_text(text)
    (project / "benchmarks/results/crash.json").unlink()
    assert re.fullmatch(
        r"error: docs/reliability.md:\d+: there is no benchmarks/results/crash.json\n", shell(write_up).err
    )
    page = project / "docs/reliability.md"
    text = page.read_text()
    page.write_text(re.sub("<!-- table: kills -->.*?<!-- end of table -->", "", text, flags=re.DOTALL))
    assert "no place for the table kills: <!-- table: kills -->" in shell(write_up).err


def made(command, seeds=(0,), threads=2, python="3.11.7", **versions):
    hardware = {"cpu": "Intel(R) Xeon(R) Processor @ 2.80GHz", "flags": None, "threads": threads}
    return {
        "command": command,
        "seeds": seeds and list(seeds),
        "versions": versions,
        "python": python,
        "hardware": hardware,
    }


def test_what_records_share_is_said_once_and_the_rest_behind_its_command():
    one = made("python a.py", (0, 1, 2), torch="2.13.0")
    assert provenance.made_by([one]) == (
        "_Made by `python a.py`; seeds 0–2; Intel Xeon 2.80 GHz, 2 threads; torch 2.13.0, Python 3.11.7._"
    )
    other = made("python b.py", (0, 2), 1, torch="2.13.0", numpy="2.4.6")
    assert provenance.made_by([one, other]) == (
        "_Made by A: `python a.py` (seeds 0–2, 2 threads), B: `python b.py` (seeds 0, 2, 1 thread, "
        "numpy 2.4.6); Intel Xeon 2.80 GHz; torch 2.13.0, Python 3.11.7._"
    )
    assert (
        provenance.made_by([made("python c.py", None, None, None)])
        == "_Made by `python c.py`; Intel Xeon 2.80 GHz._"
    )


def test_a_command_in_a_record_tells_nothing_of_the_machine(monkeypatch):
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


def test_the_spread_of_seeds_is_that_of_a_sample():
    values = [0.947, 0.95, 0.952]
    assert tables.spread(values, ".6f") == f"{np.mean(values):.6f} ± {np.std(values, ddof=1):.6f}"
    assert tables.spread(values[:1], ".4f") == "0.9470"


@pytest.fixture
def finished(tmp_path):
    """Make the folder of a run with this seed and test score, and perhaps a checkpoint of so many threads."""

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


def test_runs_that_differ_by_seed_are_one_record_whose_command_makes_them_again(finished):
    chosen = ["training.learning_rate=1e-4", "model.freeze_backbone=false", "data.train=[a b.jsonl, c.jsonl]"]
    record = scores.collected([finished(seed, 0.9 + seed / 100, *chosen, threads=3) for seed in (2, 0, 1)])
    assert (record["seeds"], record["corpus"]) == ([0, 1, 2], "corpus")
    assert record["test"] == {"accuracy": [0.9, 0.91, 0.92], "entity_f1": [None] * 3}
    assert record["versions"] == {"torch": "2.0", "transformers": "5.0"}
    assert (record["python"], record["hardware"]["threads"]) == ("3.11.0", 3)
    python, script, *words = shlex.split(record["command"].replace("seed=S", "seed=1"))
    assert (python, script) == ("python", "task_4.py")
    assert flatten_settings(load_settings(ROOT / "config.yml", words)) == flatten_settings(
        load_settings(None, [*chosen, "training.seed=1"])
    )


def test_runs_that_are_no_series_are_refused(finished):
    zero = finished(0, 0.9)
    with pytest.raises(InputError, match=r"differ in more than the seed: training.batch_size 16 and 8$"):
        scores.collected([zero, finished(1, 0.9, "training.batch_size=8")])
    with pytest.raises(InputError, match="^training.seed is 0 in more than one run$"):
        scores.collected([zero, zero])
    with pytest.raises(InputError, match="^the runs differ in threads or versions: "):
        scores.collected([zero, finished(2, 0.9, threads=1)])
    (zero / "metrics.jsonl").write_text('{"epoch": 1, "dev": null}\n{"te')
    with pytest.raises(InputError, match="no test scores: the run is not finished"):
        scores.collected([zero])
