"""Labels of the data and heads of a starting model."""

import pytest
import torch
from task_4_runs import NO_DROPOUT, initial, metrics, trained, weights
from transformers import AutoModelForTokenClassification

import task_4
from model import MultiTaskTransformer
from multitask.config.loading import load_settings
from multitask.encoders.pretrained import load_model


def test_a_trained_folder_knows_its_names_and_loads_elsewhere(shell, settings_for):
    trained(
        shell,
        settings_for,
        "data.tag_scheme=BIO",
        "model.token_head=linear",
        "model.num_labels_task_b=5",
        "model.num_classes_task_a=null",
    )
    config = MultiTaskTransformer.from_pretrained("run/model").config
    assert config.classes == ["politics", "sports"]
    assert config.id2label == {0: "O", 1: "B-LOC", 2: "I-LOC", 3: "B-PER", 4: "I-PER"}
    assert (config.tag_scheme, config.max_length, config.stride) == ("BIO", 32, 8)
    assert AutoModelForTokenClassification.from_pretrained("run/model").config.label2id["I-PER"] == 4


def test_an_untrained_task_has_no_names(shell, settings_for):
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


def test_heads_with_the_same_names_continue_and_heads_with_others_are_new(
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
    names = {"sports": "weather", "politics": "vote"}
    strange = [{**row, "label": names[row["label"]]} if "label" in row else row for row in rows]
    other = write_rows("other.jsonl", strange)
    ended = shell(
        task_4, *go_on, f"data.train={other}", f"data.dev={other}", f"data.test={other}", "output_dir=new"
    )
    assert ended.status == 0
    assert (
        "task_a: the starting model knows politics, sports; train has none of these, but vote, weather: a "
        "new head is trained" in ended.err
    )
    assert "task_b" not in ended.err
    renewed = initial([*go_on, f"data.train={other}", f"data.dev={other}"])
    changed = {name for name, value in weights().items() if not torch.equal(value, renewed[name])}
    assert changed == {"sentence_classifier.weight", "sentence_classifier.bias"}


def test_a_starting_model_keeps_its_kind_of_token_head_and_its_pooling(shell, settings_for):
    kinds = {"linear": "cls", "convolution": "mean", "window_crf": "cls"}
    for kind, pooling in kinds.items():
        chosen = [f"model.token_head={kind}", f"model.pooling={pooling}", f"output_dir={kind}"]
        assert shell(task_4, *settings_for, *chosen).status == 0
        go_on = [*settings_for, f"model.backbone={kind}/model", f"output_dir=more_{kind}"]
        start = initial(go_on)
        before = load_model(MultiTaskTransformer, f"{kind}/model").state_dict()
        assert all(torch.equal(value, before[name]) for name, value in start.items())
        other = next(name for name in kinds if name != kind)
        ended = shell(task_4, *go_on, f"model.token_head={other}")
        assert ended.status == 2
        assert f"is {other}, but the starting model's token head is {kind}" in ended.err
        assert shell(task_4, *go_on).status == 0
        config = load_model(MultiTaskTransformer, f"more_{kind}/model").config
        assert (config.token_head, config.pooling) == (kind, pooling)
        resolved = load_settings(f"more_{kind}/config.yml").model
        assert (resolved.token_head, resolved.pooling) == (kind, pooling)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ([], "convolution_crf"),
        (["training.class_weights=balanced", "training.label_smoothing=0.1"], "convolution_crf"),
        (["model.freeze_backbone=false"], "window_crf"),
        (["model.freeze_backbone=false", "training.class_weights=balanced"], "window_crf"),
        (["training.task=task_a"], "linear"),
        (["training.task=task_a", "model.token_head=convolution"], "convolution"),
    ],
)
def test_a_new_token_head_suits_a_frozen_encoder_or_one_that_trains(shell, settings_for, changes, kind):
    assert shell(task_4, *settings_for, *changes).status == 0
    assert load_model(MultiTaskTransformer, "run/model").config.token_head == kind


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
