"""The training loop as the shell runs it, on the tiny model."""

import pytest
import torch
from task_4_runs import NO_DROPOUT, initial, metrics, trained

import task_4
from multitask.data import splits
from multitask.plan.selection import Selection
from multitask.training import trainer
from multitask.training.progress import Progress


def test_a_run_prints_epochs_and_leaves_its_folder(shell, settings_for, tmp_path):
    ended = shell(task_4, *settings_for, "training.num_epochs=2", "output_dir=null")
    assert ended.status == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0] == "Using device: cpu"
    assert [line.split(":")[0] for line in lines[1:3]] == ["Epoch 1/2, Loss", "Epoch 2/2, Loss"]
    run = tmp_path / lines[-3].removeprefix("Run folder: ")
    assert tmp_path / lines[-1].removeprefix("Report: ") == run / "report.html"
    assert run.parent.name == "runs"
    assert (tmp_path / "runs/latest").resolve() == run
    files = {"checkpoints", "config.yml", "metrics.jsonl", "model", "report.html"}
    assert {path.name for path in run.iterdir()} == files
    first, second, test = metrics(run)
    assert list(first) == [
        "epoch",
        "step",
        "seconds",
        "sentences_per_second",
        "loss",
        "loss_task_a",
        "loss_task_b",
        "dev",
    ]
    assert (first["step"], second["step"], second["epoch"]) == (2, 4, 2)
    assert list(test["test"]) == list(first["dev"]) == ["accuracy", "macro_f1", "entity_f1", "exact_match"]
    assert first["loss"] == pytest.approx(first["loss_task_a"] + 5 * first["loss_task_b"])


@pytest.mark.parametrize(
    ("scores", "rising"),
    [([0.1, 0.2], True), ([0.2, 0.1], False), ([0.1, 0.1], False), ([0.1], False), ([None, None], False)],
)
def test_a_dev_score_was_still_rising_if_the_last_epoch_is_better_than_all_before(scores, rising):
    progress = Progress()
    for score in scores:
        progress.end_epoch({}, score, len(scores), None)
    assert progress.still_rising == rising


def test_a_run_says_when_its_dev_score_was_still_rising(shell, settings_for, monkeypatch):
    line = "The dev score was still rising at epoch 2: more epochs may help (training.num_epochs)"
    scores = iter([0.1, 0.2, 0.2, 0.1])
    monkeypatch.setattr(Selection, "score", lambda self, dev: next(scores))
    for name, rising in (("up", True), ("down", False)):
        ended = shell(task_4, *settings_for, "training.num_epochs=2", f"output_dir={name}")
        assert (line in ended.out.splitlines()) == rising


def test_the_same_command_or_its_written_settings_give_the_same_model(shell, settings_for):
    fine_tuned = [*settings_for, "model.freeze_backbone=false", "training.seed=7"]
    first = trained(shell, fine_tuned)
    second = trained(shell, fine_tuned, "output_dir=again")
    third = trained(shell, ["--config=run/config.yml"], "output_dir=third")
    other = trained(shell, fine_tuned, "training.seed=8", "output_dir=other")
    for name, value in first.items():
        assert torch.equal(value, second[name])
        assert torch.equal(value, third[name])
    assert not all(torch.equal(value, other[name]) for name, value in first.items())


def test_a_cached_corpus_trains_the_same_model(shell, settings_for, tmp_path, monkeypatch):
    skip = [*settings_for, "data.on_bad_row=skip"]
    with open("rows.jsonl", "a") as file:
        file.write("[]\n")
    plain, checked = trained(shell, skip), shell(task_4, *skip, "--check", "output_dir=none")
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(splits, "CACHED_FROM_BYTES", 0)
    for name in ("first", "second"):
        kept = trained(shell, skip, f"output_dir={name}")
        assert all(torch.equal(value, kept[key]) for key, value in plain.items())
        assert shell(task_4, *skip, "--check", "output_dir=none") == checked
    assert "rows.jsonl:9" in checked.err
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("stride", [8, 2])
def test_accumulated_micro_batches_train_like_one_batch(shell, settings_for, stride):
    # no dropout, which differs per micro-batch; some texts have several windows, some rows no label
    same = [
        *settings_for,
        *NO_DROPOUT,
        "training.num_epochs=3",
        "model.max_length=12",
        f"model.stride={stride}",
    ]
    whole = trained(shell, same, "training.batch_size=6")
    parts = trained(
        shell, same, "training.batch_size=2", "training.gradient_accumulation=3", "output_dir=parts"
    )
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=2e-6, rtol=1e-4)
    for a, b in zip(metrics("run")[:-1], metrics("parts")[:-1]):
        assert (a["loss_task_a"], a["loss_task_b"]) == pytest.approx(
            (b["loss_task_a"], b["loss_task_b"]), rel=1e-5
        )


@pytest.mark.parametrize(
    ("overrides", "frozen"),
    [
        ([], ["bert."]),
        (["model.freeze_backbone=false"], []),
        (["model.freeze_backbone=false", "model.freeze_layers=2"],
         ["bert.embeddings.", "bert.encoder.layer.0.", "bert.encoder.layer.1."]),
        (["model.freeze_task_a=true"], ["bert.", "sentence_classifier."]),
        (["model.freeze_backbone=false", "model.freeze_task_b=true"], ["classifier."]),
        (["training.task=task_a", "model.freeze_backbone=false"], ["classifier."]),
        (["training.task=task_b", "model.freeze_backbone=false"], ["sentence_classifier."]),
        (["training.task=task_a"], ["bert.", "classifier."]),
    ],
)  # fmt: skip
def test_frozen_weights_are_bit_identical_after_training_and_others_are_not(
    shell, settings_for, overrides, frozen
):
    if any("freeze_task" in word for word in overrides):  # a new head that is frozen would learn nothing
        trained(shell, settings_for, "output_dir=start")
        overrides = [*overrides, "model.backbone=start/model"]
    start = initial([*settings_for, *overrides])
    end = trained(shell, settings_for, *overrides)
    assert start.keys() == end.keys()
    for name, value in end.items():
        still = torch.equal(value, start[name])
        if any(name.startswith(prefix) for prefix in frozen):
            assert still, name
        elif name.startswith("bert.") or name.endswith("classifier.weight"):
            # a pad's embedding and the second segment's get no gradient, a key's bias none that matters
            assert not still or "key.bias" in name, name


def test_the_saved_model_has_the_best_dev_score(shell, settings_for, monkeypatch):
    scores = iter([0.5, 0.9, 0.7, 0.9])
    real, at_best = trainer.evaluate, {}

    def evaluate(runner, *arguments):
        result, value = real(runner, *arguments), next(scores)
        if value == 0.9 and not at_best:
            at_best.update({name: tensor.clone() for name, tensor in runner.model.state_dict().items()})
        monkeypatch.setattr(Selection, "score", lambda self, scores: value)
        return result

    monkeypatch.setattr(trainer, "evaluate", evaluate)
    kept = trained(shell, settings_for, "training.num_epochs=4")
    assert at_best.keys() == kept.keys()
    assert all(torch.equal(kept[name], value) for name, value in at_best.items())


def test_early_stopping_counts_epochs_without_a_better_score(shell, settings_for):
    # the rate is too small to change anything: the first epoch stays the best
    still = ["training.head_learning_rate=1e-12", "training.num_epochs=9", "training.early_stopping=2"]
    ended = shell(task_4, *settings_for, *still)
    assert "Stopping early: 2 epochs" in ended.out
    assert len(metrics()) == 3 + 1


def test_without_dev_the_last_model_is_saved_and_without_test_nothing_is_scored(shell, settings_for):
    run = trained(shell, settings_for, "data.dev=null", "data.test=null", "training.num_epochs=2")
    one = trained(shell, settings_for, "data.dev=null", "data.test=null", "output_dir=one")
    assert [row.get("dev", "?") for row in metrics()[:-1]] == [None, None]
    assert metrics()[-1] == {"test": None}
    assert not torch.equal(run["classifier.weight"], one["classifier.weight"])
