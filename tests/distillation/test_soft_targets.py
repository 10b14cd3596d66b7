"""Soft targets: whose they are, where they come from, and how they count."""

import json

import numpy as np
import pytest
import torch
from family_folders import make_encoder
from torch.nn import functional

import task_5
from model import MultiTaskOutput, MultiTaskTransformer, multitask_loss
from multitask.config.loading import load_settings
from multitask.data.batching import collate, count_labels
from multitask.data.examples import example_from_words
from multitask.data.labels import TASKS
from multitask.distillation.teacher_outputs import soften
from multitask.encoders.pretrained import load_model
from multitask.encoders.saving import save_model
from multitask.inference.predictor import Predictor
from multitask.training.preparation import prepare

SIZES = ["model.num_classes_task_a=null", "model.num_labels_task_b=null"]
BARE = [{"tokens": ["anna", "and", "the", "chip"]}, {"text": "Paris won. " + "the match in " * 15}]


@pytest.fixture
def targets(settings_for):
    """A function: settings → the soft targets of their run, computed."""

    def compute(*overrides):
        config, *rest = [*settings_for, *SIZES, *overrides]
        soft = prepare(load_settings(config.removeprefix("--config="), rest)).soft
        soft.compute(torch.device("cpu"))
        return soft

    return compute


def predicted(teacher, rows, temperature):
    """What a teacher's Predictor gives for rows of words → probabilities at a temperature, by name."""
    predictor = Predictor.from_pretrained(teacher, "cpu", "fp32")
    examples = [example_from_words(row["tokens"]) for row in rows]
    predictions = predictor.predict_examples(examples, tag_probabilities=True)
    texts = [{name: p ** (1 / temperature) for name, p in one.probabilities.items()} for one in predictions]
    of_texts = [{name: p / sum(text.values()) for name, p in text.items()} for text in texts]
    of_words = np.concatenate([one.tag_probabilities for one in predictions]).astype(np.float64)
    return of_texts, of_words


def test_they_are_the_teachers_probabilities_matched_by_name(targets, trained, rows):
    rows = [row for row in rows if "tokens" in row]
    soft = targets(f"distillation.teacher={trained}", "distillation.temperature=3", "data.tag_scheme=BIO")
    kept = [i for i, row in enumerate(soft.corpus.row_lines) if row not in (5,)]  # line 5 is a text
    of_texts, of_words = predicted(trained, rows, 3)
    own = soft.values["task_a"][kept]
    for row, text in zip(own, of_texts):
        assert dict(zip(soft.labels.classes, row.tolist())) == pytest.approx(text, rel=1e-4)
    words = np.concatenate([np.arange(*soft.corpus.word_rows[[row, row + 1]]) for row in kept])
    np.testing.assert_allclose(soft.values["task_b"][words], soften(of_words, 3), rtol=1e-4)


def test_a_student_of_io_tags_adds_up_b_and_i_of_its_teacher(targets, trained):
    bio, io = (
        targets(f"distillation.teacher={trained}", "distillation.temperature=1", f"data.tag_scheme={scheme}")
        for scheme in ("BIO", "IO")
    )
    b, i = bio.values["task_b"], io.values["task_b"]
    assert (bio.labels.tags, io.labels.tags) == (
        ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"],
        ["O", "LOC", "PER"],
    )
    np.testing.assert_allclose(i, np.stack([b[:, 0], b[:, 1] + b[:, 2], b[:, 3] + b[:, 4]], 1), rtol=1e-5)


def test_folder_and_rows_give_the_same_targets(targets, shell, trained, rows, write_rows):
    words = [row for row in rows if "tokens" in row] + BARE
    plain = write_rows("plain.jsonl", words)
    written = ["predict", "--input", plain, "--output", "soft.jsonl", "--soft-targets", "--model", trained]
    assert shell(task_5, *written).status == 0
    with open("soft.jsonl") as file:
        merged = [{**json.loads(line), **row} for line, row in zip(file, words)]
    for row in merged[-1:]:  # words of its own, which are those of its text
        assert row["tokens"][:3] == ["Paris", "won", "."]
    both = write_rows("both.jsonl", [{k: v for k, v in row.items() if k != "text"} for row in merged])
    settings = ["data.tag_scheme=IO", "distillation.temperature=4"]
    first = targets(f"distillation.teacher={trained}", f"data.train={plain}", *settings)
    second = targets("distillation.teacher=rows", f"data.train={both}", *settings)
    for task in TASKS:
        np.testing.assert_allclose(second.values[task], first.values[task], rtol=1e-4, atol=1e-6)
        assert first.values[task].sum(1) == pytest.approx(1)


def test_teacher_and_student_may_have_other_subwords_and_windows(
    targets, tmp_path, rows, trained, write_rows
):
    """A RoBERTa teaches a BERT; each word has one target, whatever its pieces are."""
    texts = [" ".join(row["tokens"]) for row in rows if "tokens" in row] * 5
    encoder = make_encoder("roberta", tmp_path / "roberta", texts)
    fields = {"classes": ["sports", "politics"], "num_classes_task_a": 2, "tag_scheme": "IO", "stride": 2}
    names = {"id2label": {0: "O", 1: "PER", 2: "LOC"}, "max_length": 9}
    torch.manual_seed(1)
    model = load_model(MultiTaskTransformer, encoder, new_heads=True, **fields, **names)
    save_model(model, encoder, tmp_path / "teacher")
    path = write_rows("all.jsonl", rows + BARE)
    soft = targets(
        f"distillation.teacher={tmp_path / 'teacher'}", f"data.train={path}", "distillation.temperature=1"
    )
    assert soft.values["task_b"].shape == (int(soft.corpus.word_rows[-1]), 3)
    tokens = [row for row in rows if "tokens" in row]
    of_texts, of_words = predicted(tmp_path / "teacher", tokens, 1)
    first = len(tokens[0]["tokens"])
    places = [0, 2, 1]  # PER and LOC: in another order than the student's
    np.testing.assert_allclose(soft.values["task_b"][:first], of_words[:first][:, places], rtol=1e-4)
    assert dict(zip(soft.labels.classes, soft.values["task_a"][0].tolist())) == pytest.approx(
        of_texts[0], rel=1e-4
    )


@pytest.mark.parametrize("share", [0.3, 1])
def test_the_loss_of_a_step_is_a_mean_over_its_texts_and_words(targets, trained, rows, write_rows, share):
    """Rows with both kinds of targets, with one of them, and in several windows: against loops over items."""
    some = [{**rows[0], "probabilities": {"sports": 0.2, "politics": 0.8}}, rows[1]]
    some.append({**BARE[1], "probabilities": {"sports": 1}})
    tags = [{"O": 0.5, "PER": 0.25, "LOC": 0.25}] * 4
    some += [{**BARE[0], "tag_probabilities": tags}, {**rows[3], "tag_probabilities": tags}]
    path = write_rows("some.jsonl", some)
    soft = targets("distillation.teacher=rows", f"data.train={path}", f"distillation.share={share}")
    corpus, every = soft.corpus, np.arange(len(soft.corpus.window_start))
    assert len(every) > len(corpus), "a row has several windows"
    batch = collate(corpus, every)
    shape = batch["input_ids"].shape
    batch |= soft.batch(every, *shape)
    torch.manual_seed(2)
    output = MultiTaskOutput(torch.randn(shape[0], 2), torch.randn(*shape, 3))
    counts = soft.count(every, count_labels(corpus, every))
    hard = multitask_loss(
        output, batch["labels_task_a"], batch["labels_task_b"], *counts, batch["weights_task_a"]
    )
    mixed = soft.mix(hard, output, batch, counts)
    for task, labels, logits in (
        ("task_a", batch["labels_task_a"], output[0]),
        ("task_b", batch["labels_task_b"], output[1]),
    ):
        total = weight = 0.0
        targets_of, weights = batch[f"soft_{task}"].flatten(0, -2), batch["weights_task_a"]
        for place, (label, row) in enumerate(zip(labels.flatten(), logits.flatten(0, -2))):
            part = weights[place].item() if task == "task_a" else 1.0
            if label >= 0:
                total += (1 - share) * part * functional.cross_entropy(row, label).item()
                weight += (1 - share) * part
            if (p := targets_of[place]).any():
                student = (row / soft.temperature).log_softmax(0)
                total += share * part * soft.temperature**2 * (torch.xlogy(p, p) - p * student).sum().item()
                weight += share * part
        assert mixed[TASKS.index(task)].item() == pytest.approx(total / weight, rel=1e-5)


def test_windows_without_anything_to_learn_are_left_out(targets, trained, rows, write_rows):
    given = {
        "probabilities": {"sports": 0.2, "politics": 0.8},
        "tag_probabilities": [{"O": 0.5, "PER": 0.5}] * 4,
    }
    path = write_rows("some.jsonl", [rows[0], {**BARE[0], **given}, BARE[0], rows[3]])
    settings = ["distillation.teacher=rows", f"data.train={path}"]
    assert targets(*settings).windows().tolist() == [0, 1, 3]
    assert targets(*settings, "distillation.share=1").windows().tolist() == [1]
    assert targets(*settings, "distillation.share=0.5", "training.task=task_b").windows().tolist() == [
        0,
        1,
        3,
    ]
    everything = targets(f"distillation.teacher={trained}", f"data.train={path}")
    assert everything.windows().tolist() == [0, 1, 2, 3]


def test_large_targets_are_cached_and_found_again(targets, trained, monkeypatch, tmp_path):
    settings = [f"distillation.teacher={trained}", f"cache_dir={tmp_path / 'cache'}"]
    expected = targets(*settings).values
    files = [*settings, "training.feature_memory=0"]
    written = targets(*files).values
    monkeypatch.setattr("multitask.distillation.soft_targets.teacher_probabilities", None)  # not needed now
    found = targets(*files).values
    for task in TASKS:
        assert np.array_equal(written[task], expected[task]) and np.array_equal(found[task], expected[task])
    with pytest.raises(TypeError):  # at another temperature they are others
        targets(*files, "distillation.temperature=5")
