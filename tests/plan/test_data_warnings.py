"""Data from which little or nothing can be learned is refused or warned about, in every run."""

import html
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

import task_4
from multitask.common.errors import InputError
from multitask.config.loading import load_settings
from multitask.training.preparation import Prepared, prepare

PLAIN = [  # both tasks are annotated, each label five times, no text stands twice
    {"tokens": [f"{first}{n}", second], "tags": [tag, "O"], "label": label}
    for first, second, tag, label in (("a", "b", "B-PER", "x"), ("c", "d", "B-LOC", "y"))
    for n in range(5)
]


@pytest.fixture
def ready(settings_for, write_rows):
    """Prepare a run on rows of train, dev and test; None: no such split."""

    def call(train, *more, dev=None, test=None) -> Prepared:
        config, *overrides = settings_for
        for name, rows in (("train", train), ("dev", dev), ("test", test)):
            overrides.append(f"data.{name}={write_rows(f'{name}.jsonl', rows) if rows else 'null'}")
        free = ["model.num_classes_task_a=null", "model.num_labels_task_b=null"]
        return prepare(load_settings(config.removeprefix("--config="), [*overrides, *free, *more]))

    return call


def without(rows, *keys):
    return [{key: value for key, value in row.items() if key not in keys} for row in rows]


def test_data_without_fault_causes_no_warning(ready):
    dev = [{**row, "tokens": ["dev", *row["tokens"]], "tags": ["O", *row["tags"]]} for row in PLAIN]
    assert ready(PLAIN, dev=dev).warnings == []


@pytest.mark.parametrize(
    ("rows", "settings", "reason"),
    [
        (
            without(PLAIN, "label"),
            [],
            "no row of data.train has a label; training.task=task_b trains without",
        ),
        (without(PLAIN, "tags"), [], "no row of data.train has an entity; training.task=task_a trains"),
        (without(PLAIN, "tags"), ["training.task=task_b"], "no row of data.train has an entity"),
        (without(PLAIN, "tags", "label"), [], "has a label or an entity: there is nothing to learn"),
        (PLAIN[:5], [], "data.train has a single class, x: .*, or set training.task to task_b"),
        (
            without(PLAIN[:5], "tags"),
            ["training.task=task_a"],
            "single class, x: .*; add rows of another class$",
        ),
        (
            PLAIN,
            ["model.freeze_task_a=true"],
            "model.freeze_task_a is true, but the head is new and would stay",
        ),
        (
            PLAIN,
            ["model.freeze_task_b=true", "model.freeze_backbone=false"],
            "model.freeze_task_b is true, but the head is new",
        ),
        (
            PLAIN,
            [
                "training.task=task_a",
                "model.freeze_task_a=true",
                "model.freeze_backbone=false",
                "model.freeze_layers=3",
            ],
            "nothing is left to train: all layers",
        ),
    ],
)
def test_a_run_that_can_learn_nothing_is_refused(ready, rows, settings, reason):
    with pytest.raises(InputError, match=reason):
        ready(rows, *settings)


def test_labels_that_a_frozen_head_lacks_are_refused(shell, settings_for, ready):
    assert shell(task_4, *settings_for).status == 0
    names = {"x": "sports", "y": "politics"}
    known = [{**row, "label": names[row["label"]]} for row in PLAIN]
    frozen = ["model.backbone=run/model", "model.freeze_task_a=true"]
    assert ready(known, *frozen).heads.new == frozenset()
    more = [{**row, "label": "weather"} for row in PLAIN[:5]]
    with pytest.raises(InputError, match="train has classes that the starting model's head .*: weather"):
        ready([*known, *more], *frozen)


def test_rare_labels_are_named_with_the_remedy(ready):
    rare = [{"tokens": ["z", "z"], "tags": ["B-ORG", "O"], "label": "rare"}]
    few = "train has few rows of the class rare 1 (of 11)"
    warnings = ready(PLAIN + rare).warnings
    assert len(warnings) == 2 and few in warnings[0] and "few entities of the type ORG 1" in warnings[1]
    assert all("training.class_weights=balanced" in line for line in warnings)
    weighted = ready(PLAIN + rare, "training.class_weights=balanced").warnings
    assert len(weighted) == 2 and not any("training.class_weights" in line for line in weighted)
    assert len(ready(PLAIN + rare, "training.task=task_b").warnings) == 1
    many = [{**PLAIN[0], "tokens": ["many", str(n)]} for n in range(594)]
    assert "the class y 5 (of 604)" in ready(PLAIN + many).warnings[0], "less than 1 %"


def test_labels_that_the_model_may_unlearn_are_named(shell, settings_for, ready):
    assert shell(task_4, *settings_for).status == 0
    names = {"x": "sports", "y": "weather"}
    rows = [{**row, "label": names[row["label"]]} for row in PLAIN]
    warnings = ready(rows, "model.backbone=run/model").warnings
    assert (
        "warning: train has no rows of the class politics, which the starting model knows: it may "
        "unlearn it; add rows of it"
    ) in warnings


def test_texts_in_two_splits_and_contradictions_stand_in_the_report(shell, settings_for, rows, write_rows):
    other = {**rows[1], "label": "sports", "tags": ["O", "B-LOC"]}
    train = write_rows("train.jsonl", [*rows, other])
    dev = write_rows("dev.jsonl", [{"tokens": ["new"], "label": "sports", "tags": ["O"]}, *rows[:3]])
    ended = shell(task_4, *settings_for, f"data.train={train}", f"data.dev={dev}", "data.test=null")
    assert ended.status == 0, ended.err
    page = html.unescape(Path("run/report.html").read_text())
    for line in (
        f"3 rows of dev are also in train, the first at {dev}:2: scores on dev are too good",
        f"1 texts have different classes in different rows, the first at {train}:2 (politics)",
        f"1 texts have different entities in different rows, the first at {train}:2 and {train}:9",
    ):
        assert line in ended.err and line in page, line
    assert "Warnings" in page


def test_contradictions_are_those_of_a_search_row_by_row(ready):
    random = np.random.default_rng(5)
    rows = [dict(PLAIN[0]), dict(PLAIN[5])]
    for _ in range(300):
        row = {"tokens": [str(word) for word in random.integers(0, 4, random.integers(1, 4))]}
        if random.random() < 0.7:
            row["label"] = "xy"[random.integers(2)]
        if random.random() < 0.7:
            row["tags"] = [["O", "B-PER", "B-LOC"][i] for i in random.integers(0, 3, len(row["tokens"]))]
        rows.append(row)
    train, dev = rows[:200], rows[200:]
    found = defaultdict(lambda: (set(), set()))
    for row in rows:
        for values, key in zip(found[tuple(row["tokens"])], ("label", "tags")):
            values |= {str(row[key])} if key in row else set()
    both = {tuple(row["tokens"]) for row in train} & {tuple(row["tokens"]) for row in dev}
    again = sum(tuple(row["tokens"]) in both for row in dev)
    counts = [sum(len(values[i]) > 1 for values in found.values()) for i in (0, 1)]
    assert min(counts) > 10 and again > 10
    warnings = "\n".join(ready(train, "data.tag_scheme=BIO", dev=dev).warnings)
    assert f"{again} rows of dev are also in train" in warnings
    assert f"{counts[0]} texts have different classes" in warnings
    assert f"{counts[1]} texts have different entities" in warnings
