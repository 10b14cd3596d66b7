"""Class weights and label smoothing are those of torch's cross-entropy, whatever the batches are."""

import numpy as np
import pytest
import torch
from alike import ALIKE, assert_alike
from task_4_runs import metrics
from torch.nn import functional

import task_4
from multitask.common.errors import InputError
from multitask.config.loading import load_settings
from multitask.config.schema import Settings
from multitask.data.batching import collate
from multitask.data.corpus import encode
from multitask.data.examples import Example
from multitask.data.labels import LabelSpace, Span
from multitask.encoders.pretrained import load_model
from multitask.plan.class_weights import class_weights
from multitask.training.preparation import prepare

STILL = ["training.num_epochs=1", "training.head_learning_rate=1e-12", "model.dropout=0"]
WEIGHTED = ["training.class_weights={sports: 3, PER: 5, O: 0.5}", "training.label_smoothing=0.2"]


def settings(**training) -> Settings:
    return Settings.model_validate({"training": training})


@pytest.fixture
def corpus(tokenizer):
    spans = [Span(0, 1, "LOC")], [Span(0, 2, "PER")], [], None
    labels = "x", "x", "y", None
    examples = [Example(["anna", "vote"], of_row, label) for of_row, label in zip(spans, labels)]
    return lambda label_space: encode(examples, tokenizer, label_space, 16, 4)


def test_balanced_labels_have_equal_shares_of_the_loss(corpus):
    labels = LabelSpace(("x", "y", "z"), ("LOC", "PER"), "BIO")
    weights = class_weights(settings(class_weights="balanced"), labels, corpus(labels))
    assert weights["task_a"] == pytest.approx([3 / (2 * 2), 3 / (2 * 1), 1])
    counts = {"O": 3, "B-LOC": 1, "I-LOC": 0, "B-PER": 1, "I-PER": 1}  # in three annotated rows
    expected = [6 / (4 * n) if n else 1 for n in counts.values()]
    assert weights["task_b"] == pytest.approx(expected)
    only = class_weights(settings(class_weights="balanced", task="task_b"), labels, corpus(labels))
    assert only.keys() == {"task_b"}


def test_weights_are_given_by_the_names_of_classes_and_types(corpus):
    labels = LabelSpace(("x", "PER"), ("LOC", "PER"), "BIO")
    weights = class_weights(settings(class_weights={"PER": 2, "O": 0.5}), labels, corpus(labels))
    assert weights["task_a"].tolist() == [1, 2]
    assert weights["task_b"].tolist() == [0.5, 1, 1, 2, 2]
    assert class_weights(settings(), labels, corpus(labels)) == {}
    with pytest.raises(
        InputError, match="no class or type that is trained is named 'LOK'; did you mean LOC?"
    ):
        class_weights(settings(class_weights={"LOK": 2}), labels, corpus(labels))
    with pytest.raises(InputError, match="named 'x'"):
        class_weights(settings(class_weights={"x": 2}, task="task_b"), labels, corpus(labels))


@pytest.mark.parametrize(
    "value", ["balance", "{a: 0}", "{a: -1}", "{a: .inf}", "{a: yes}", "{a: true}", "{}", "3"]
)
def test_other_values_are_refused(value):
    with pytest.raises(InputError, match="class_weights: null, balanced or {name: weight"):
        load_settings(None, [f"training.class_weights={value}"])


def test_the_loss_is_torchs_weighted_mean_over_the_labelled_items(shell, settings_for):
    config, *overrides = settings_for
    all_rows = ["training.batch_size=8", *STILL, *WEIGHTED]
    assert shell(task_4, config, *overrides, *all_rows).status == 0
    prepared = prepare(load_settings(config.removeprefix("--config="), [*overrides, *WEIGHTED]))
    corpus = prepared.corpora["train"]
    batch = collate(corpus, np.arange(len(corpus.window_start)))
    model = load_model(task_4.MultiTaskTransformer, "run/model").eval()
    with torch.inference_mode():
        output = model(batch["input_ids"], batch["attention_mask"])
    by_hand = [
        functional.cross_entropy(logits, ids, torch.tensor(weights), label_smoothing=0.2).item()
        for logits, ids, weights in (
            (output.sentence_logits, batch["labels_task_a"], [1.0, 3.0]),
            (output.token_logits.flatten(0, 1), batch["labels_task_b"].flatten(), [0.5, 1.0, 5.0]),
        )
    ]
    (row, _) = metrics()
    assert [row["loss_task_a"], row["loss_task_b"]] == pytest.approx(by_hand, abs=1e-5)


def test_a_step_in_parts_trains_the_same_model(train_run):
    learning = [*ALIKE, "model.freeze_backbone=false", "training.learning_rate=3e-3", *WEIGHTED]
    windows = ["model.max_length=8", "model.stride=2"]  # a text of several windows counts once
    whole = train_run("whole", *learning, *windows, "training.batch_size=8")
    parts = ["training.batch_size=2", "training.gradient_accumulation=4"]
    assert_alike(whole, train_run("parts", *learning, *windows, *parts))
    plain = train_run("plain", *ALIKE, *learning[2:4], *windows, "training.batch_size=8")
    assert plain[0][0]["loss_task_a"] != pytest.approx(whole[0][0]["loss_task_a"], abs=1e-3)
