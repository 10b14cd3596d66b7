"""The training loop as the shell runs it, on the tiny model."""

import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForTokenClassification

import task_4
from model import MultiTaskTransformer
from multitask.config.loading import load_settings
from multitask.config.schema import Settings
from multitask.data import splits
from multitask.encoders.pretrained import load_model
from multitask.training import trainer
from multitask.training.preparation import prepare

NO_DROPOUT = ["model.dropout=0", "model.freeze_backbone=false"]


def metrics(folder="run") -> list[dict]:
    with open(f"{folder}/metrics.jsonl") as file:
        return [json.loads(line) for line in file]


def weights(folder="run") -> dict[str, torch.Tensor]:
    return load_file(f"{folder}/model/model.safetensors")


def initial(overrides) -> dict[str, torch.Tensor]:
    """The weights that a run of these overrides starts from."""
    config, *rest = overrides
    settings: Settings = load_settings(config.removeprefix("--config="), rest)
    return task_4.build(prepare(settings), settings).state_dict()


def trained(shell, overrides, *more) -> dict[str, torch.Tensor]:
    ended = shell(task_4, *overrides, *more)
    assert ended.status == 0, ended.err
    folder = next((word for word in reversed(more) if word.startswith("output_dir=")), "output_dir=run")
    return weights(folder.partition("=")[2])


def test_a_run_prints_epochs_and_leaves_its_folder(shell, settings_for, tmp_path):
    ended = shell(task_4, *settings_for, "training.num_epochs=2", "output_dir=null")
    assert ended.status == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0] == "Using device: cpu"
    assert [line.split(":")[0] for line in lines[1:3]] == ["Epoch 1/2, Loss", "Epoch 2/2, Loss"]
    run = tmp_path / lines[-2].removeprefix("Run folder: ")
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
    assert first["loss"] == pytest.approx(first["loss_task_a"] + first["loss_task_b"])


def test_the_same_command_gives_the_same_model_and_the_written_settings_give_it_again(shell, settings_for):
    fine_tuned = [*settings_for, "model.freeze_backbone=false", "training.seed=7"]
    first = trained(shell, fine_tuned)
    second = trained(shell, fine_tuned, "output_dir=again")
    third = trained(shell, ["--config=run/config.yml"], "output_dir=third")
    other = trained(shell, fine_tuned, "training.seed=8", "output_dir=other")
    for name, value in first.items():
        assert torch.equal(value, second[name])
        assert torch.equal(value, third[name])
    assert not all(torch.equal(value, other[name]) for name, value in first.items())


def test_a_corpus_that_is_kept_on_disk_trains_the_same_model(shell, settings_for, tmp_path, monkeypatch):
    skip = [*settings_for, "data.on_bad_row=skip"]
    with open("rows.jsonl", "a") as file:
        file.write("[]\n")
    plain, checked = trained(shell, skip), shell(task_4, *skip, "--check", "output_dir=none")
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(splits, "_LARGE", 0)
    for name in ("first", "second"):
        kept = trained(shell, skip, f"output_dir={name}")
        assert all(torch.equal(value, kept[key]) for key, value in plain.items())
        assert shell(task_4, *skip, "--check", "output_dir=none") == checked
    assert "rows.jsonl:9" in checked.err
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("stride", [8, 2])
def test_accumulated_micro_batches_train_as_one_batch_does(shell, settings_for, stride):
    # without dropout, which each micro-batch draws anew; some texts have several windows, some rows no label
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
def test_what_is_frozen_is_bit_equal_after_training_and_the_rest_is_not(
    shell, settings_for, overrides, frozen
):
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


def test_the_model_that_is_kept_is_the_one_with_the_best_dev_score(shell, settings_for, monkeypatch):
    scores = iter([0.5, 0.9, 0.7, 0.9])
    real, at_best = trainer.evaluate, {}

    def evaluate(runner, *arguments):
        result, value = real(runner, *arguments), next(scores)
        if value == 0.9 and not at_best:
            at_best.update({name: tensor.clone() for name, tensor in runner.model.state_dict().items()})
        monkeypatch.setattr(type(result), "mean", lambda self: value)
        return result

    monkeypatch.setattr(trainer, "evaluate", evaluate)
    kept = trained(shell, settings_for, "training.num_epochs=4")
    assert at_best.keys() == kept.keys()
    assert all(torch.equal(kept[name], value) for name, value in at_best.items())


def test_early_stopping_counts_epochs_without_a_better_score(shell, settings_for):
    # a rate that changes nothing: the first epoch stays the best
    still = ["training.head_learning_rate=1e-12", "training.num_epochs=9", "training.early_stopping=2"]
    ended = shell(task_4, *settings_for, *still)
    assert "Stopping early: 2 epochs" in ended.out
    assert len(metrics()) == 3 + 1


def test_without_dev_the_last_model_is_kept_and_without_test_none_is_scored(shell, settings_for):
    run = trained(shell, settings_for, "data.dev=null", "data.test=null", "training.num_epochs=2")
    one = trained(shell, settings_for, "data.dev=null", "data.test=null", "output_dir=one")
    assert [row.get("dev", "?") for row in metrics()[:-1]] == [None, None]
    assert metrics()[-1] == {"test": None}
    assert not torch.equal(run["classifier.weight"], one["classifier.weight"])


def test_a_trained_folder_knows_its_names_and_loads_elsewhere(shell, settings_for):
    trained(
        shell,
        settings_for,
        "data.tag_scheme=BIO",
        "model.num_labels_task_b=5",
        "model.num_classes_task_a=null",
    )
    config = MultiTaskTransformer.from_pretrained("run/model").config
    assert config.classes == ["politics", "sports"]
    assert config.id2label == {0: "O", 1: "B-LOC", 2: "I-LOC", 3: "B-PER", 4: "I-PER"}
    assert (config.tag_scheme, config.max_length, config.stride) == ("BIO", 32, 8)
    assert AutoModelForTokenClassification.from_pretrained("run/model").config.label2id["I-PER"] == 4


def test_a_task_that_was_not_trained_has_no_names_until_it_is(shell, settings_for):
    trained(shell, settings_for, "training.task=task_a")
    config = MultiTaskTransformer.from_pretrained("run/model").config
    assert (config.classes, config.tag_scheme) == (["politics", "sports"], None)
    assert metrics()[-1]["test"]["entity_f1"] is None
    start = weights()
    more = ["model.backbone=run/model", "training.task=task_b", "output_dir=both"]
    end = trained(shell, settings_for, *more)
    config = MultiTaskTransformer.from_pretrained("both/model").config
    assert (config.classes, config.tag_scheme) == (["politics", "sports"], "IO")
    assert metrics("both")[-1]["test"]["accuracy"] is None
    assert torch.equal(end["sentence_classifier.weight"], start["sentence_classifier.weight"])


def test_training_goes_on_from_a_models_heads_or_renews_those_with_other_names(
    shell, settings_for, rows, write_rows
):
    trained(shell, settings_for)
    go_on = [*settings_for, "model.backbone=run/model"]
    fitted = load_model(MultiTaskTransformer, "run/model").config
    assert 1 not in (fitted.temperature_task_a, fitted.temperature_task_b)
    assert shell(task_4, *go_on, "data.dev=null", "output_dir=unfitted").status == 0
    unfitted = load_model(MultiTaskTransformer, "unfitted/model").config
    assert (unfitted.temperature_task_a, unfitted.temperature_task_b) == (1, 1)
    assert all(torch.equal(value, weights()[name]) for name, value in initial(go_on).items())
    other = write_rows(
        "other.jsonl", [{**row, "label": "weather"} if row.get("label") == "sports" else row for row in rows]
    )
    ended = shell(
        task_4, *go_on, f"data.train={other}", f"data.dev={other}", f"data.test={other}", "output_dir=new"
    )
    assert ended.status == 0
    assert (
        "task_a: the starting model knows politics, sports; train has politics, weather: a new head"
        in ended.err
    )
    assert "task_b" not in ended.err
    renewed = initial([*go_on, f"data.train={other}", f"data.dev={other}"])
    changed = {name for name, value in weights().items() if not torch.equal(value, renewed[name])}
    assert changed == {"sentence_classifier.weight", "sentence_classifier.bias"}


@pytest.mark.parametrize(("task", "other"), [("task_a", "entities"), ("task_b", "classes")])
def test_a_task_that_is_not_trained_may_have_labels_that_its_head_does_not_know(
    shell, settings_for, rows, write_rows, task, other
):
    both = trained(shell, settings_for)
    strange = [
        {**row, "label": f"new {number}"}
        if other == "classes"
        else {**row, "tags": [f"B-NEW{number}"] * len(row["tags"])}
        for number, row in enumerate(row for row in rows if "tags" in row and "label" in row)
    ]
    data = [f"data.train={write_rows('strange.jsonl', strange)}", "data.dev=null", "data.test=null"]
    more = [*data, "model.backbone=run/model", f"training.task={task}", "output_dir=more"]
    after = trained(shell, settings_for, *more)
    untouched = "classifier" if task == "task_a" else "sentence_classifier"
    assert torch.equal(after[f"{untouched}.weight"], both[f"{untouched}.weight"])
    trained_head = "sentence_classifier" if task == "task_a" else "classifier"
    assert not torch.equal(after[f"{trained_head}.weight"], both[f"{trained_head}.weight"])


def test_entities_of_one_file_and_classes_of_another_train_both_heads(shell, settings_for, rows, write_rows):
    only_entities = write_rows(
        "e.jsonl", [{k: v for k, v in row.items() if k != "label"} for row in rows if "tags" in row]
    )
    only_classes = write_rows(
        "c.jsonl", [{k: v for k, v in row.items() if k != "tags"} for row in rows if "tokens" in row]
    )
    files = f"data.train=[{only_entities}, {only_classes}]"
    start = initial([*settings_for, files])
    end = trained(shell, settings_for, files)
    for head in ("classifier.weight", "sentence_classifier.weight"):
        assert not torch.equal(start[head], end[head])
    assert 0 < metrics()[0]["loss_task_a"] < 10 and 0 < metrics()[0]["loss_task_b"] < 10


def test_loss_weights_scale_the_gradient_of_their_task(shell, settings_for):
    overrides = [*settings_for, *NO_DROPOUT, "training.max_grad_norm=null"]
    ended = shell(task_4, *overrides, "training.loss_weights={task_a: 0.5, task_b: 3}")
    assert ended.status == 0
    row = metrics()[0]
    assert row["loss"] == pytest.approx(0.5 * row["loss_task_a"] + 3 * row["loss_task_b"])


def test_labels_that_train_lacks_are_a_warning_and_scored_as_wrong(shell, settings_for, rows, write_rows):
    dev = write_rows("dev.jsonl", [*rows, {"tokens": ["a"], "tags": ["B-GPE"], "label": "weather"}])
    ended = shell(task_4, *settings_for, f"data.dev={dev}")
    assert ended.status == 0
    assert "warning: dev has the class 'weather' 1 times, train never: each is scored as wrong" in ended.err
    assert "warning: dev has the type 'GPE' 1 times" in ended.err


def test_rows_that_are_skipped_are_reported(shell, settings_for, rows, write_rows):
    path = write_rows("some.jsonl", [*rows, {"tokens": ["a", "b"], "tags": ["O"]}])
    ended = shell(task_4, *settings_for, f"data.train={path}", "data.on_bad_row=skip", "--check")
    assert ended.status == 0
    assert f"{path}:9: 2 tokens, but 1 tags" in ended.err
    assert "train: 8 rows used, 1 skipped" in ended.out


def test_check_says_what_there_is_and_trains_nothing(shell, settings_for, tmp_path):
    before = sorted(tmp_path.iterdir())
    out = shell(task_4, "--check", *settings_for, "model.max_length=8", "model.stride=2").out
    assert "classes: politics 3, sports 4, none 1" in out
    assert "entities: LOC 3, PER 5; 1 rows not annotated" in out
    assert "dev: 8 rows are also in train" in out
    assert "1 rows in several windows" in out
    assert sorted(tmp_path.iterdir()) == before


def test_help_lists_every_key(shell):
    out = shell(task_4, "--help").out
    assert "training.head_learning_rate = 0.001" in out
    assert "model.offline_backbone = all-MiniLM-L6-v2" in out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["training.lr=1"], "did you mean training.learning_rate?"),
        (
            ["model.num_classes_task_a=3"],
            "model.num_classes_task_a is 3, but the data has 2 classes: politics, sports",
        ),
        (
            ["model.num_labels_task_b=4"],
            "model.num_labels_task_b is 4, but the data has 3 tags under IO: O, LOC, PER",
        ),
        (["data.tag_scheme=BIO"], "the data has 5 tags under BIO"),
        (["data.train=nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["data.dev=[nowhere.jsonl, broken.jsonl]"], "broken.jsonl:2: not JSON"),
        (
            ["data.test=lengths.jsonl"],
            "lengths.jsonl:1: 2 tokens, but 1 tags\n(data.on_bad_row=skip trains without",
        ),
        (["data.train=empty.jsonl"], "empty.jsonl: the file has no rows"),
        (["data.train=classes.jsonl"], "no row of data.train has an entity; training.task=task_a"),
        (["data.train=classes.jsonl", "training.task=task_b"], "no row of data.train has an entity"),
        (["data.dev=classes.jsonl", "training.task=task_b"], "data.dev has no annotation of task_b"),
        (["device=tpu"], "a device is cpu, cuda or cuda:1"),
        (["model.freeze_task_a=true", "model.freeze_task_b=true"], "nothing is left to train"),
        (
            ["model.freeze_layers=9", "model.freeze_backbone=false"],
            "freeze_layers is 9, but the encoder has 3 layers",
        ),
        (["model.max_length=100"], "model.max_length is 100, but the encoder has 64 positions"),
        (["model.backbone=runs/no/model"], "no folder runs/no/model"),
        (["model.backbone=."], "no config.json"),
        (["output_dir=taken"], "taken is not empty"),
        (["output_dir=empty.jsonl"], "empty.jsonl is a file"),
        (["--config=nowhere.yml"], "nowhere.yml: no such file"),
        (["--resume"], "--resume: there is no run in runs"),
        (["--resume", "taken"], "taken/config.yml"),
        (["--resume=nowhere"], "nowhere is not the folder of a run: it has no config.yml"),
        (["--again"], "unrecognized arguments: --again"),
    ],
)
def test_bad_input_is_one_clear_line_and_nothing_is_written(shell, settings_for, tmp_path, arguments, reason):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/config.yml").write_text("")
    for name, text in (
        ("broken.jsonl", '{"text": "a"}\n{"text": \n{"text": "b"}\n'),
        ("lengths.jsonl", '{"tokens": ["a", "b"], "tags": ["O"]}\n'),
        ("empty.jsonl", ""),
        ("classes.jsonl", '{"text": "a", "label": "x"}\n'),
    ):
        (tmp_path / name).write_text(text)
    before = sorted(tmp_path.rglob("*"))
    ended = shell(task_4, *settings_for, *arguments)
    assert ended.status == 2
    assert reason in ended.err
    assert "Traceback" not in ended.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_without_cuda_the_run_goes_on_on_the_cpu_and_says_so(shell, settings_for):
    ended = shell(task_4, *settings_for, "device=cuda")
    assert ended.status == 0
    assert "CUDA is not available: using the CPU" in ended.err
    assert ended.out.startswith("Using device: cpu")


def test_a_run_can_be_resumed_by_the_process_that_it_was_stopped_in(shell, settings_for, monkeypatch):
    real, steps = task_4.gradients, iter([0, signal.SIGTERM])

    def gradients(*arguments):
        real(*arguments)
        if number := next(steps, 0):
            os.kill(os.getpid(), number)

    monkeypatch.setattr(task_4, "gradients", gradients)
    assert shell(task_4, *settings_for, "training.num_epochs=2").status == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    ended = shell(task_4, "--resume=run")
    assert ended.status == 0, ended.err
    assert "Resuming run after step 2, 2 of epoch 1" in ended.out
    assert [row.get("epoch") for row in metrics()] == [1, 2, None]
