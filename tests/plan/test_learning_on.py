"""On corpus/: a model that learns a second task, or a third class, keeps what it knows."""

import json
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from killing import make_quick

import task_4
import task_5
from multitask.common.shell import run_script

CLASSES = ("politics", "sports", "technology")
MINI = [f"--config={ROOT / 'config.yml'}", "device=cpu", "model.num_classes_task_a=null", "data.test=null"]


def corpus(split: str) -> list[dict]:
    return [json.loads(line) for line in (ROOT / "corpus" / f"{split}.jsonl").read_text().splitlines()]


def run(*arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        task = {"predict": task_5, "evaluate": task_5}.get(arguments[0], task_4)
        patch.setattr(sys, "argv", [task.__name__ + ".py", *arguments])
        run_script(task.main)


def recalls(run_folder: str) -> dict[str, float]:
    """The share of test's rows of each class that the model finds."""
    rows = [row for row in corpus("test") if "label" in row]
    run("predict", f"--model={run_folder}/model", "--input=texts.jsonl", f"--output={run_folder}.jsonl")
    found = [json.loads(line)["label"] for line in Path(f"{run_folder}.jsonl").read_text().splitlines()]
    right = {name: [f == name for f, row in zip(found, rows) if row["label"] == name] for name in CLASSES}
    return {name: sum(hits) / len(hits) for name, hits in right.items()}


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory):
    """A folder, the working one, with the run `two`, which knows two of the three classes and no entities."""
    folder = tmp_path_factory.mktemp("learning_on")
    train, dev = (
        [row for row in corpus(split) if row.get("label") in CLASSES[:2]] for split in ("train", "dev")
    )
    of_class = {name: [row for row in corpus("train") if row.get("label") == name] for name in CLASSES}
    files = {
        "two": train[:200],
        "two_dev": dev,
        "entities": corpus("train")[:150],
        "sixty": [row for rows in of_class.values() for row in rows[:20]],
        "skewed": [row for rows, n in zip(of_class.values(), (57, 2, 1)) for row in rows[:n]],
        "entities_dev": [{**row, "label": None} for row in corpus("dev")],
        "texts": [{"text": row["text"]} for row in corpus("test") if "label" in row],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_quick(patch.setattr)
        for name, rows in files.items():
            Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        first = [
            "data.train=two.jsonl",
            "data.dev=two_dev.jsonl",
            "training.task=task_a",
            "model.pooling=mean",
        ]
        run(*MINI, *first, "output_dir=two")
        yield folder


def test_a_second_task_changes_no_class_and_no_probability(two_classes):
    more = ["model.backbone=two/model", "training.task=task_b", "training.num_epochs=3"]
    run(*MINI, *more, "data.train=entities.jsonl", "data.dev=entities_dev.jsonl", "output_dir=both")
    rows = []
    for name in ("two", "both"):
        run("predict", f"--model={name}/model", "--input=texts.jsonl", f"--output={name}.jsonl")
        rows.append([json.loads(line) for line in Path(f"{name}.jsonl").read_text().splitlines()])
    first, second = ([(row["label"], row["probabilities"]) for row in part] for part in rows)
    assert first == second
    assert max(max(probabilities.values()) for _, probabilities in first) > 0.9
    assert any(row["entities"] for row in rows[1]) and not any(row["entities"] for row in rows[0])


def test_a_third_class_is_learned_and_the_known_ones_are_kept(two_classes):
    before = recalls("two")
    known = (before["politics"] + before["sports"]) / 2
    assert known > 0.9
    for epochs in (1, 5):
        more = ["model.backbone=two/model", "training.task=task_a", f"training.num_epochs={epochs}"]
        run(*MINI, *more, "data.train=sixty.jsonl", "data.dev=null", f"output_dir=three_{epochs}")
        after = recalls(f"three_{epochs}")
        assert (after["politics"] + after["sports"]) / 2 >= 0.85 * known
        assert after["technology"] >= 0.85


def test_balanced_weights_teach_classes_of_one_and_two_rows(two_classes):
    found = {}
    for weights in ("null", "balanced"):
        words = ["training.task=task_a", f"training.class_weights={weights}", "data.dev=null"]
        run(*MINI, *words, "data.train=skewed.jsonl", f"output_dir=skewed_{weights}")
        found[weights] = recalls(f"skewed_{weights}")
    rare = {weights: recall["sports"] + recall["technology"] for weights, recall in found.items()}
    assert rare["balanced"] > rare["null"] + 0.3
