"""Starting models, tasks and data in all combinations: each run ends with a model that is right."""

import json
import sys
from itertools import product

import pytest
from conftest import ROOT
from killing import make_quick
from task_4_runs import metrics

import task_4
from multitask.common.shell import run_script
from multitask.inference.predictor import Predictor

TASKS = {"both": {"task_a", "task_b"}, "task_a": {"task_a"}, "task_b": {"task_b"}}
STARTS = {"none": None, "A": "task_a", "B": "task_b", "two": "both", "other": "both"}
FULL = [
    {"tokens": [f"{word}{n}", "the", word], "tags": [tag, "O", "O"], "label": label}
    for n in range(8)
    for word, tag, label in (("vote", "B-PER", "politics"), ("match", "B-LOC", "sports"))
]
RARE = [{"tokens": [f"chip{n}", "chip"], "tags": ["B-ACT", "O"], "label": "chips"} for n in range(2)]
DATA = {
    "full": FULL,
    "partial": [
        {k: v for k, v in row.items() if k != ("tags" if n % 3 else "label")} for n, row in enumerate(FULL)
    ],
    "skewed": [*FULL, *RARE],
}
NAMES = {"task_a": ["politics", "sports"], "task_b": ["LOC", "PER"]}
OTHER = {"politics": "fun", "sports": "art", "B-PER": "B-ORG", "B-LOC": "B-GPE", "O": "O"}
TEXTS = ["anna won the vote", "the match", "the chip and the chip and the match in paris " * 2]


def train(folder: str, *words: str) -> None:
    settings = [
        "model.num_classes_task_a=null",
        "model.num_labels_task_b=null",
        "data.test=null",
        "device=cpu",
    ]
    settings += ["training.num_epochs=3", "training.head_learning_rate=1e-2", "training.batch_size=4"]
    arguments = [f"--config={ROOT / 'config.yml'}", *settings, *words, f"output_dir={folder}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["task_4.py", *arguments])
        run_script(task_4.main)


@pytest.fixture(scope="module")
def starts(tiny, tmp_path_factory):
    """The working folder, with data and a run for each starting model."""
    folder = tmp_path_factory.mktemp("combinations")
    renamed = [
        {**row, "tags": [OTHER[tag] for tag in row["tags"]], "label": OTHER[row["label"]]} for row in FULL
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_quick(patch.setattr)
        for name, rows in {**DATA, "renamed": renamed}.items():
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for name, task in STARTS.items():
            if task:
                data = "renamed" if name == "other" else "full"
                words = [f"model.backbone={tiny}", f"training.task={task}", "model.pooling=mean"]
                windows = ["model.max_length=16", "model.stride=4"]
                train(name, *words, *windows, f"data.train={data}.jsonl", f"data.dev={data}.jsonl")
        yield folder


def expected_names(start: str, task: str, is_trained: bool, data: str) -> list[str]:
    known = NAMES[task] if task in TASKS.get(STARTS[start], ()) else []
    if start == "other":
        known = sorted(OTHER[f"B-{name}"][2:] if task == "task_b" else OTHER[name] for name in NAMES[task])
    if not is_trained:
        return known
    new = {"task_a": "chips", "task_b": "ACT"}[task]
    present = sorted([*NAMES[task], *([new] if data == "skewed" else [])])
    if not set(known) & set(present):
        return present
    return known + [name for name in present if name not in known]


@pytest.mark.parametrize(
    ("start", "task", "data"), [part for n, part in enumerate(product(STARTS, TASKS, DATA)) if n % 2 == 0]
)
def test_a_run_ends_right(starts, tiny, capfd, start, task, data):
    run = f"{start}-{task}-{data}"
    backbone = tiny if start == "none" else f"{start}/model"
    capfd.readouterr()
    words = [f"model.backbone={backbone}", f"training.task={task}"]
    train(run, *words, f"data.train={data}.jsonl", f"data.dev={data}.jsonl")
    err = capfd.readouterr().err
    assert "Traceback" not in err
    for line in err.splitlines():
        assert line.startswith(
            ("warning: ", "task_a: the starting model knows", "task_b: the starting model knows")
        )
    labels = Predictor.from_pretrained(f"{run}/model").labels
    for name, names in (("task_a", labels.classes), ("task_b", labels.types)):
        assert list(names) == expected_names(start, name, name in TASKS[task], data), name
    assert ("few rows of the class chips 2" in err) == (data == "skewed" and "task_a" in TASKS[task])
    first, *_, last, _ = metrics(run)
    for name, score in (("task_a", "accuracy"), ("task_b", "entity_f1")):
        trained = name in TASKS[task]
        assert (last["dev"][score] is not None) == trained
        if trained:
            assert last[f"loss_{name}"] < first[f"loss_{name}"]
    if start == "none":
        return
    models = [Predictor.from_pretrained(f"{folder}/model") for folder in (start, run)]
    before, after = ([row for row in model.predict(TEXTS)] for model in models)
    for name in TASKS[STARTS[start]] - TASKS[task]:
        for old, new in zip(before, after):
            if name == "task_a":
                assert (old.label, old.probabilities) == (new.label, new.probabilities)
            else:
                assert old.entities == new.entities
