"""A head of the starting model stays what it was; one that gets more labels keeps those that it knows."""

import json
from pathlib import Path

import pytest
import torch
from task_4_runs import initial, trained, weights

import task_4
import task_5
from model import MultiTaskTransformer
from multitask.config.loading import load_settings
from multitask.encoders.pretrained import load_model
from multitask.encoders.thresholds import read_thresholds
from token_heads import CRF_HEADS, TOKEN_HEADS

OTHER_WINDOW = ["model.max_length=16", "model.stride=4"]
LONG = "anna won the match in paris and the vote in the paris match " * 3


def changed(settings: list[str], *removed: str) -> list[str]:
    """The settings without those of these keys: the defaults of config.yml apply."""
    return [word for word in settings if not word.startswith(tuple(f"{key}=" for key in removed))]


def predictions(shell, model: str, rows: list[dict]) -> list[dict]:
    Path("texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    ended = shell(task_5, "predict", "--model", model, "--input", "texts.jsonl", "--output", f"{model}.jsonl")
    assert ended.status == 0, ended.err
    return [json.loads(line) for line in Path(f"{model}.jsonl").read_text().splitlines()]


def without(rows: list[dict], *keys: str) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in keys} for row in rows]


@pytest.fixture
def texts(rows):
    return [LONG, *(row.get("text") or " ".join(row["tokens"]) for row in rows)]


@pytest.mark.parametrize(
    ("first", "second", "fields"),
    [
        (["training.task=task_a"], ["training.task=task_b"], ("label", "probabilities")),
        (
            ["training.task=task_b", "data.tag_scheme=BIO", "model.num_labels_task_b=null"],
            ["training.task=task_a"],
            ("entities",),
        ),
    ],
)
@pytest.mark.parametrize("annotated", [False, True])
def test_a_second_task_leaves_the_first_ones_predictions(
    shell, settings_for, rows, write_rows, texts, first, second, fields, annotated
):
    rates = ["training.head_learning_rate=3e-2", "training.num_epochs=5"]
    start = [*settings_for, *OTHER_WINDOW, "model.pooling=mean", "output_dir=first", *first, *rates]
    assert shell(task_4, *start).status == 0
    defaults = changed(
        settings_for,
        *("model.num_classes_task_a", "model.num_labels_task_b", "model.max_length", "model.stride"),
    )
    sizes = (
        ["model.num_labels_task_b=3"] if "training.task=task_b" in second else ["model.num_classes_task_a=2"]
    )
    key = "label" if "training.task=task_b" in second else "tags"
    dev = write_rows(
        "dev.jsonl", without(rows, *([] if annotated else [key, "entities"] if key == "tags" else [key]))
    )
    more = [*defaults, *sizes, *second, f"data.dev={dev}", "model.backbone=first/model", "output_dir=second"]
    ended = shell(task_4, *more)
    assert ended.status == 0, ended.err
    before, after = (predictions(shell, f"{run}/model", texts) for run in ("first", "second"))
    assert [[row[field] for field in fields] for row in before] == [
        [row[field] for field in fields] for row in after
    ]
    assert any(row[fields[0]] for row in before)
    configs = [load_model(MultiTaskTransformer, f"{run}/model").config for run in ("first", "second")]
    task = first[0].partition("=")[2]
    for name in ("pooling", "max_length", "stride", f"temperature_{task}"):
        assert getattr(configs[0], name) == getattr(configs[1], name), name
    assert getattr(configs[0], f"temperature_{task}") != 1
    card = Path("second/model/README.md").read_text()
    assert f"{'A' if task == 'task_a' else 'B'} is that of the starting model" in card
    thresholds = [getattr(read_thresholds(f"{run}/model"), task) for run in ("first", "second")]
    assert thresholds[0] == thresholds[1] is not None
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert Path(f"first/model/{name}").read_bytes() == Path(f"second/model/{name}").read_bytes()


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("model.pooling=cls", "model.pooling is cls, but the starting model's sentence head reads mean"),
        ("model.max_length=24", "model.max_length is 24, but task_a is not trained"),
        ("model.stride=2", "model.stride is 2, but task_a is not trained"),
        ("model.num_classes_task_a=5", "is 5, but the starting model has 2 classes: politics, sports"),
    ],
)
def test_another_setting_than_a_kept_head_needs_is_refused(shell, settings_for, setting, reason):
    first = [*settings_for, *OTHER_WINDOW, "model.pooling=mean", "training.task=task_a"]
    assert shell(task_4, *first).status == 0
    more = [*settings_for, *OTHER_WINDOW, "model.backbone=run/model", "training.task=task_b", "output_dir=b"]
    assert shell(task_4, *more, "--check").status == 0
    ended = shell(task_4, *more, setting)
    assert (ended.status, reason in ended.err) == (2, True), ended.err


def test_the_size_of_an_untrained_head_is_the_starting_models(shell, settings_for, rows, write_rows):
    several = [{**row, "label": f"class {n}"} for n, row in enumerate(rows[:5])]
    start = [f"data.{split}={write_rows('five.jsonl', several)}" for split in ("train", "dev", "test")]
    sizes = ["model.num_classes_task_a=null", "training.task=task_a"]
    assert shell(task_4, *settings_for, *start, *sizes).status == 0
    more = [*changed(settings_for, "model.num_classes_task_a"), "model.backbone=run/model", "output_dir=b"]
    ended = shell(task_4, *more, "training.task=task_b")  # config.yml has 3 classes
    assert ended.status == 0, ended.err
    assert load_settings("b/config.yml").model.num_classes_task_a == 5
    ended = shell(task_4, *more, *start, "training.task=task_a", "output_dir=c")
    assert (ended.status, "3, but the starting model has 5 classes: class 0" in ended.err) == (2, True)


@pytest.mark.parametrize("scheme", ["IO", "BIO"])
@pytest.mark.parametrize("token_head", TOKEN_HEADS)
def test_new_labels_are_added_to_what_a_head_knows(shell, settings_for, rows, write_rows, scheme, token_head):
    free = ["model.num_classes_task_a=null", "model.num_labels_task_b=null", f"data.tag_scheme={scheme}"]
    start = trained(shell, settings_for, *free, f"model.token_head={token_head}")
    added = [{"tokens": ["chip", "anna"], "tags": ["B-ACT", "B-PER"], "label": "chips"}] * 4
    more = write_rows("more.jsonl", rows + added)
    go_on = [*settings_for, *free, "model.backbone=run/model", f"data.train={more}", f"data.dev={more}"]
    begun = initial(go_on)
    tags = ["O", "LOC", "PER", "ACT"]
    if scheme == "BIO":
        tags = ["O", *(f"{prefix}-{name}" for name in tags[1:] for prefix in "BI")]
    for part, known, names in (
        ("sentence_classifier", ["politics", "sports"], ["politics", "sports", "chips"]),
        ("classifier", tags[: -2 if scheme == "BIO" else -1], tags),
    ):
        assert len(begun[f"{part}.weight"]) == len(names)
        for name in names:
            row = begun[f"{part}.weight"][names.index(name)]
            if name in known:
                assert torch.equal(row, start[f"{part}.weight"][known.index(name)])
                assert begun[f"{part}.bias"][names.index(name)] == start[f"{part}.bias"][known.index(name)]
            else:
                assert 0 < row.abs().max() < 0.2 and begun[f"{part}.bias"][names.index(name)] == 0
    if token_head in CRF_HEADS:
        expected, known = torch.zeros(len(tags), len(tags)), len(start["classifier.bias"])
        expected[:known, :known] = start["transitions.weight"]
        assert expected.any() and torch.equal(begun["transitions.weight"], expected)
    others = begun.keys() - {
        f"{part}.{kind}" for part in ("classifier", "sentence_classifier") for kind in ("weight", "bias")
    }
    others -= {"transitions.weight"}
    assert all(torch.equal(begun[name], start[name]) for name in others)
    ended = shell(task_4, *go_on, "output_dir=more")
    assert ended.status == 0, ended.err
    assert "task_a: the starting model knows politics, sports; train also has chips" in ended.err
    config = load_model(MultiTaskTransformer, "more/model").config
    assert config.classes == ["politics", "sports", "chips"]
    assert [config.id2label[i] for i in range(len(tags))] == tags
    anew = initial([*go_on, "model.new_heads=task_a"])
    assert anew["sentence_classifier.weight"].abs().max() < 0.2
    assert torch.equal(anew["classifier.weight"], begun["classifier.weight"])


def test_the_reason_for_a_new_tag_head_is_the_scheme(shell, settings_for):
    trained(shell, settings_for, "data.tag_scheme=BIO", "model.num_labels_task_b=null")
    ended = shell(task_4, *settings_for, "model.backbone=run/model", "output_dir=io")
    assert ended.status == 0, ended.err
    reason = (
        "task_b: the starting model learned BIO tags, and data.tag_scheme is IO (data.tag_scheme=BIO keeps"
    )
    assert reason in ended.err
    assert "knows LOC" not in ended.err
    same = initial(
        [*settings_for, "model.backbone=run/model", "data.tag_scheme=BIO", "model.num_labels_task_b=5"]
    )
    assert torch.equal(same["classifier.weight"], weights()["classifier.weight"])


def test_a_head_that_is_not_trained_under_an_encoder_that_is_causes_a_warning(shell, settings_for):
    trained(shell, settings_for, "training.task=task_a")
    more = [*settings_for, "model.backbone=run/model", "training.task=task_b", "output_dir=b"]
    assert "its predictions" not in shell(task_4, *more, "--check").err
    ended = shell(task_4, *more, "--check", "model.freeze_backbone=false")
    assert "warning: task_a is not trained, but the encoder that its head reads is" in ended.err
