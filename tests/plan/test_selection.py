"""The best epoch is the one with the best score on dev, of what dev measures."""

import re
from pathlib import Path

import pytest
import torch
from task_4_runs import metrics
from torch.nn import functional

import task_4
from multitask.common.errors import InputError
from multitask.config.loading import load_settings
from multitask.evaluation.metrics import ClassScores, EntityScores, Score, Scores
from multitask.inference.predictor import Predictor
from multitask.inference.runner import run_model
from multitask.plan.selection import Selection
from multitask.training.preparation import prepare

BOTH = ("task_a", "task_b")
LEARNING = ["training.num_epochs=5", "model.freeze_backbone=false", "training.learning_rate=3e-3"]


ENTITIES = Score(1, 4, 4)


def scores(loss: float) -> Scores:
    classes = ClassScores(8, {"x": Score(3, 4, 8), "y": Score(1, 4, 0)}, 0.5)
    return Scores(classes, EntityScores(8, {"PER": ENTITIES}, 20, 0.9, ENTITIES), 0.125, loss)


def prepared(settings_for, *more):
    config, *overrides = settings_for
    return prepare(load_settings(config.removeprefix("--config="), [*overrides, *more]))


@pytest.mark.parametrize(
    ("by", "measured", "score"),
    [
        ("auto", BOTH, (0.5 + 0.25) / 2),
        ("auto", ("task_a",), 0.5),
        ("auto", ("task_b",), 0.25),
        ("auto", (), None),
        ("accuracy", BOTH, 0.5),
        ("macro_f1", BOTH, (0.5 + 0.5) / 2),
        ("entity_f1", BOTH, 0.25),
        ("exact_match", BOTH, 0.125),
        ("loss", BOTH, -1.5),
    ],
)
def test_the_score_is_what_the_setting_names(by, measured, score):
    assert Selection(by, measured).score(scores(loss=1.5)) == (
        None if score is None else pytest.approx(score)
    )
    assert Selection(by, measured).score(None) is None


@pytest.mark.parametrize("by", ["auto", "accuracy", "macro_f1", "entity_f1", "exact_match", "loss"])
def test_the_earliest_best_epoch_is_kept(shell, settings_for, by):
    ended = shell(task_4, *settings_for, *LEARNING, f"training.select_by={by}")
    assert ended.status == 0, ended.err
    dev = [row["dev"] for row in metrics()[:-1]]
    values = {
        "auto": [row["accuracy"] + row["entity_f1"] for row in dev],
        "loss": [-row.get("loss", 0) for row in dev],
    }.get(by) or [row[by] for row in dev]
    best = re.search(r"saved after epoch (\d+), the best on dev", Path("run/report.html").read_text())
    assert int(best[1]) == 1 + values.index(max(values))
    assert all(("loss" in row) == (by == "loss") for row in dev)


@pytest.mark.parametrize("task", ["both", "task_a", "task_b"])
def test_the_loss_on_dev_is_that_of_the_logits_that_predict(shell, settings_for, task):
    words = ["training.select_by=loss", "model.max_length=8", "model.stride=2", f"training.task={task}"]
    assert shell(task_4, *settings_for, *words, "training.class_weights=balanced").status == 0
    corpus = prepared(settings_for, *words).corpora["dev"]
    predictor, loss = Predictor.from_pretrained("run/model"), 0.0
    (out,) = run_model(predictor.runner, corpus)
    weights = {"task_a": 1, "task_b": 5} if task == "both" else {task: 1}
    for name, logits, gold in (
        ("task_a", out.sentence_logits, corpus.row_classes),
        ("task_b", out.word_logits, corpus.word_tags),
    ):
        if name in weights:
            loss += (
                weights[name]
                * functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(gold).long()).item()
            )
    assert metrics()[0]["dev"]["loss"] == pytest.approx(loss, abs=1e-4)


def test_a_task_that_dev_does_not_measure_is_left_out_of_the_score(settings_for, rows, write_rows):
    no_tags = write_rows(
        "a.jsonl", [{k: v for k, v in row.items() if k != "tags"} for row in rows if "tags" in row]
    )
    no_entities = write_rows("b.jsonl", [{"tokens": ["the", "vote"], "tags": ["O", "O"], "label": "sports"}])
    other = write_rows("c.jsonl", [{**row, "label": "weather"} for row in rows])
    assert prepared(settings_for).selection.measured == BOTH
    for dev, measured, reason in (
        (no_tags, ("task_a",), "data.dev has no annotation of task_b"),
        (no_entities, ("task_a",), "data.dev has no entity of a type that the model knows"),
        (other, ("task_b",), "data.dev has no class that the model knows"),
    ):
        ready = prepared(settings_for, f"data.dev={dev}")
        assert ready.selection.measured == measured
        assert any(reason in line and "the best epoch is chosen without" in line for line in ready.warnings)
        with pytest.raises(InputError, match=f"{reason}: training.early_stopping would end the run"):
            prepared(settings_for, f"data.dev={dev}", "training.early_stopping=2")


def test_a_head_that_can_not_change_is_left_out_of_the_score(shell, settings_for):
    assert shell(task_4, *settings_for).status == 0
    frozen = ["model.backbone=run/model", "model.freeze_task_a=true"]
    assert prepared(settings_for, *frozen).selection.measured == ("task_b",)
    assert prepared(settings_for, *frozen, "model.freeze_backbone=false").selection.measured == BOTH


@pytest.mark.parametrize(
    ("by", "task", "dev", "reason"),
    [
        ("entity_f1", "both", ["label"], "select_by is entity_f1, but data.dev has no annotation of task_b"),
        ("macro_f1", "both", ["tags"], "select_by is macro_f1, but data.dev has no annotation of task_a"),
        ("accuracy", "task_b", ["tags"], "select_by is accuracy, but training.task is task_b"),
        ("entity_f1", "task_a", ["label"], "select_by is entity_f1, but training.task is task_a"),
    ],
)
def test_a_score_that_dev_does_not_give_is_refused(settings_for, rows, write_rows, by, task, dev, reason):
    whole = [row for row in rows if row.keys() >= {"tokens", "tags", "label"}]
    path = write_rows("dev.jsonl", [{k: row[k] for k in ("tokens", *dev)} for row in whole])
    words = [f"data.dev={path}", f"training.task={task}", f"training.select_by={by}"]
    with pytest.raises(InputError, match=reason):
        prepared(settings_for, *words)


def test_exact_match_needs_a_row_with_both_annotations(settings_for, rows, write_rows):
    halves = [{"tokens": ["the", "vote"], "label": "sports"}, {"tokens": ["anna"], "tags": ["B-PER"]}]
    words = [f"data.dev={write_rows('dev.jsonl', halves)}", "training.select_by=exact_match"]
    with pytest.raises(InputError, match="no row of data.dev has both a class and entities"):
        prepared(settings_for, *words)
