"""Runs of task_4.py that learn from a teacher."""

import json
import shutil
import signal

import pytest
import torch
from alike import ALIKE, assert_alike, result
from resuming import SETTINGS, finished, newest_good, resumed
from task_4_runs import metrics, weights
from task_4_runs import trained as train_weights

import task_4
from multitask.common.checksums import CHECKSUMS

TUNED = ["model.freeze_backbone=false", "training.learning_rate=1e-3"]
GIVEN = {"probabilities": {"sports": 0.2, "politics": 0.8}, "tag_probabilities": [{"O": 0.5, "PER": 0.5}]}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_share_of_0_is_training_without_a_teacher(shell, settings_for, trained):
    plain = train_weights(shell, settings_for, *TUNED, "output_dir=plain")
    none = [f"distillation.teacher={trained}", "distillation.share=0"]
    assert same(train_weights(shell, settings_for, *TUNED, *none, "output_dir=none"), plain)
    some = [f"distillation.teacher={trained}", "distillation.share=0.1"]
    assert not same(train_weights(shell, settings_for, *TUNED, *some, "output_dir=some"), plain)


def test_a_student_learns_what_its_teacher_says_of_unlabelled_texts(
    shell, settings_for, rows, trained, write_rows
):
    """No row has a label: classes and types are the teacher's."""
    bare = [{key: row[key] for key in ("tokens", "text") if key in row} for row in rows]
    path = write_rows("bare.jsonl", bare)
    settings = [f"data.train={path}", f"distillation.teacher={trained}", "training.num_epochs=40", *TUNED]
    ended = shell(task_4, *settings_for, *settings, "model.pooling=mean")
    assert ended.status == 0, ended.err
    assert "also knows classes of which train has no class: politics, sports" in ended.err
    losses = [row["loss"] for row in metrics()[:-1]]
    assert losses[-1] < losses[0] / 2
    assert weights()["transitions.weight"].any(), "a CRF learns from the teacher alone"


@pytest.mark.parametrize(
    "settings",
    [
        ["model.freeze_backbone=true"],
        [
            *TUNED,
            "training.class_weights=balanced",
            "training.label_smoothing=0.1",
            "training.gradient_cosine=true",
        ],
        [
            *TUNED,
            "training.loss_weighting=uncertainty",
            "training.task=both",
            "model.max_length=8",
            "model.stride=2",
        ],
        [*TUNED, "training.task=task_b", "model.lora.rank=2"],
        [
            *TUNED,
            "training.loss_weighting=dwa",
            "model.freeze_layers=1",
            "training.gradient_checkpointing=true",
        ],
    ],
    ids=["heads", "class weights", "windows", "LoRA, one task", "upper layers"],
)
def test_micro_batches_give_the_same_student(train_run, trained, settings):
    common = [*ALIKE, *settings, f"distillation.teacher={trained}", "training.precision=fp32"]
    halves = ["training.batch_size=4", "training.gradient_accumulation=2"]
    assert_alike(train_run("one", *common, "training.batch_size=8"), train_run("two", *common, *halves))


def test_two_processes_train_the_same_student(train_run, runs, settings_for, tmp_path, trained):
    common = [*ALIKE, *TUNED, f"distillation.teacher={trained}", "training.precision=fp32"]
    outcome = runs(tmp_path, *settings_for, *common, "training.batch_size=4", "output_dir=both", processes=2)
    assert outcome.status == 0, outcome.err
    assert_alike(train_run("alone", *common, "training.batch_size=8"), result(tmp_path / "both"))


def test_a_known_head_learns_a_class_that_only_the_teacher_knows(
    shell, settings_for, rows, trained, write_rows
):
    more = write_rows("more.jsonl", [*rows, {"tokens": ["the", "chip"], "label": "weather"}])
    sizes = ["model.num_classes_task_a=3", "data.tag_scheme=BIO", "model.num_labels_task_b=5"]
    first = [f"data.train={more}", *sizes, "output_dir=teacher", *TUNED]
    assert shell(task_4, *settings_for, *first).status == 0
    path = write_rows("bare.jsonl", [{"tokens": row["tokens"]} for row in rows if "tokens" in row])
    settings = [
        f"model.backbone={trained}",
        "distillation.teacher=teacher/model",
        f"data.train={path}",
        *sizes,
    ]
    window = ["model.max_length=24", "model.stride=6"]
    ended = shell(task_4, *settings_for, *settings, *window, "training.class_weights=balanced")
    assert ended.status == 0, ended.err
    assert "also knows classes of which train has no class: " in ended.err
    found = weights()["sentence_classifier.bias"]
    assert found.shape == (3,) and found[2].abs() < 0.1


@pytest.fixture
def of_teacher(fresh, trained):
    """A function that makes a folder with rows, an encoder and a teacher."""

    def make(name):
        folder = fresh(name)
        shutil.copytree(trained, folder / "teacher")
        return folder

    return make


STUDENT = [*SETTINGS, "distillation.teacher=teacher", "training.feature_memory=0"]


@pytest.mark.parametrize("teacher", ["teacher", "rows"])
def test_a_killed_student_resumes_to_the_same_end(runs, of_teacher, teacher):
    settings = [*STUDENT, f"distillation.teacher={teacher}", "training.feature_memory=0.25"]

    def folder(name):
        made = of_teacher(name)
        if teacher == "rows":
            rows = [json.loads(line) for line in (made / "rows.jsonl").read_text().splitlines()]
            rows[0]["probabilities"] = GIVEN["probabilities"]
            rows[1]["tag_probabilities"] = GIVEN["tag_probabilities"] * 2
            (made / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return made

    whole, *_ = finished(runs, folder("whole"), settings)
    killed = folder("killed")
    assert runs(killed, *settings, at_step={5: [signal.SIGKILL]}).status == -signal.SIGKILL
    assert newest_good(killed) == 4
    assert resumed(runs, killed, settings) == whole


def test_another_teacher_is_noticed_at_resume(runs, of_teacher):
    folder = of_teacher("changed")
    assert runs(folder, *STUDENT, at_step={5: [signal.SIGKILL]}).status == -signal.SIGKILL
    weights = bytearray((folder / "teacher/model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "teacher/model.safetensors").write_bytes(weights)
    assert not (folder / "teacher" / CHECKSUMS).exists()
    outcome = runs(folder, "--resume", "run")
    assert outcome.status == 2 and "the teacher has changed" in outcome.err


def test_the_newest_run_as_a_teacher_stays_the_one_that_it_was(shell, settings_for, trained, tmp_path):
    """runs/latest may become the student's own run."""
    shutil.copytree(trained.parent, tmp_path / "runs" / "old")
    (tmp_path / "runs" / "latest").symlink_to("old")
    ended = shell(task_4, *settings_for, "distillation.teacher=runs/latest/model", "output_dir=runs/new")
    assert ended.status == 0, ended.err
    assert (tmp_path / "runs" / "latest").resolve().name == "new"
    assert "teacher: runs/old/model\n" in (tmp_path / "runs/new/config.yml").read_text()
