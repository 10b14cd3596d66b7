"""The comparisons of training with transformers.Trainer."""

import json

import pytest
import torch
from benchmark_runs import SHORT, bench, corpus  # noqa: F401 - fixtures
from conftest import ROOT
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import time_to_score, train_speed
from benchmarks.flops import Shape, Work, training_flops
from benchmarks.trainer_run import ModelWithLoss, make_trainer
from model import MultiTaskTransformer
from multitask.config.loading import load_settings
from multitask.encoders.pretrained import load_model
from multitask.training.preparation import prepare

# the modules that run as `python -m` are also imported
pytestmark = pytest.mark.filterwarnings("ignore:'benchmarks:RuntimeWarning")


def test_table_and_record_of_training_speed_agree(tiny, corpus, tmp_path, bench):  # noqa: F811
    words = ["--backbone", tiny, "--limit", 12, "--rounds", 1, "--batch-size", 4, "--freeze-layers", 1]
    words += [
        "--trainer-rates",
        "2e-3,5e-3",
        "training.learning_rate=1e-3",
        "training.head_learning_rate=4e-3",
    ]
    ended = bench(train_speed, "--corpus", corpus, *words, *SHORT, "--output", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == ended.json
    results = ended.json["results"]
    speed, settings, *_ = ended.tables
    head, _, *rows = speed
    assert [row[0] for row in rows] == list(results)
    assert list(results) == ["this project", "Trainer", "Trainer, tuned", "this project, nothing frozen"]
    for row in rows:
        cells, result = dict(zip(head, row)), results[row[0]]
        assert result["sentences_per_second"] == pytest.approx(12 / sum(result["rounds"][0]["seconds"]))
        assert cells["sentences/s"] == f"{result['sentences_per_second']:,.1f}"
        for name in ("Trainer", "Trainer, tuned"):
            ratio = result["sentences_per_second"] / results[name]["sentences_per_second"]
            assert cells[f"× {name}"] == f"{ratio:.3f}" == f"{result['ratio'][name]:.3f}"
    cells = {row[0]: row[1:] for row in settings}
    assert cells["rate of the encoder"] == ["0.001", "0.002", "0.002", "0.001"]
    assert cells["rate of the heads"] == ["0.004", "0.005", "0.005", "0.004"]
    assert cells["attention dropout"] == ["0", "0 and 0.1", "0 and 0.1", "0"]
    assert cells["dropout in the encoder"] == ["0 and 0.1"] * 3 + ["0.1"]
    assert cells["order"] == ["LengthGroupedSampler", "random", "group_by_length", "LengthGroupedSampler"]
    work = [results[name]["gflop_per_epoch"] for name in results]
    assert work[0] == work[1] == work[2] < work[3]


def test_table_and_record_of_the_time_to_a_score_agree(tiny, corpus, bench):  # noqa: F811
    ended = bench(
        time_to_score, "--corpus", corpus, "--backbone", tiny, "--target", 0, "--batch-size", 4, *SHORT
    )
    slow, *_ = results = list(ended.json["results"].values())
    head, _, *rows = ended.tables[0]
    assert [row[0] for row in rows] == list(ended.json["results"])
    for row, result in zip(rows, results):
        assert row[head.index("F1 ≥ 0")] == "yes"
        assert row[-3] == f"{slow['training_seconds'] / result['training_seconds']:.3f}"
    rates = [(r["settings"]["rate of the encoder"], r["settings"]["rate of the heads"]) for r in results]
    assert rates == [("5e-05", "5e-05"), ("0.0002", "0.002"), ("0.0002", "0.002")]


@pytest.mark.parametrize("benchmark", [train_speed, time_to_score])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--corpus", "missing"], "error: --corpus: missing has no train.jsonl\n"),
        (["--corpus", ROOT / "corpus", "trainig.seed=1"], "error: command line: trainig.seed=1: unknown key"),
        (
            ["--corpus", ROOT / "corpus", "device=cpu"],
            "error: device=cpu: the options of this benchmark set it\n",
        ),
        (
            ["--corpus", ROOT / "corpus", "training.loss_weights.task_b=2"],
            "error: training.loss_weights.task_b=2: all contenders minimize the sum of both losses\n",
        ),
    ],
)
def test_a_wrong_command_line_gives_one_line_of_error(benchmark, words, message, shell):
    words = [*words, "--target=0.5"] if benchmark is time_to_score else words
    ended = shell(benchmark, *words)
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith(message)


@pytest.mark.parametrize("frozen", [None, 1, 2, 3])
def test_training_flops_equal_those_that_torch_counts(tiny, frozen):
    sizes = {"num_classes_task_a": 5, "num_labels_task_b": 7}
    model = load_model(MultiTaskTransformer, tiny, new_heads=True, **sizes).train()
    model.set_attn_implementation("eager")
    model.freeze(layers=frozen or 0)
    B, T = 4, 9
    ids, mask = torch.randint(5, 50, (B, T)), torch.ones(B, T, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        ModelWithLoss(model)(ids, mask, torch.randint(5, (B,)), torch.randint(7, (B, T)))["loss"].backward()
    shape = Shape(hidden=32, intermediate=64, layers=3, classes=5, tags=7)
    assert training_flops(shape, Work(B, B * T, B * T * T), frozen) == counter.get_total_flops()


def test_trainer_groups_this_data_by_length(settings_for, tmp_path, write_rows):
    rows = [
        {"tokens": ["vote"] * (1 + i % 16), "tags": ["O"] * (1 + i % 16), "label": "ab"[i % 2]}
        for i in range(64)
    ]
    rows[0]["tags"] = ["B-LOC"]
    path = write_rows("lengths.jsonl", rows)
    data = [f"data.train={path}", "model.num_labels_task_b=2", "data.dev=null", "data.test=null"]
    settings = load_settings(ROOT / "config.yml", [*settings_for[1:], *data])
    prepared = prepare(settings)
    model = load_model(MultiTaskTransformer, prepared.backbone.folder, new_heads=True)
    cells = {}
    for order in ("random", "group_by_length"):
        trainer = make_trainer(
            model, prepared.corpora["train"], settings, tmp_path, train_sampling_strategy=order
        )
        shapes = [batch["input_ids"].shape for batch in trainer.get_train_dataloader()]
        assert sum(rows for rows, _ in shapes) == 64
        cells[order] = sum(rows * tokens for rows, tokens in shapes)
        assert trainer.data_collator.cells == cells[order]
        assert trainer.data_collator.tokens == prepared.corpora["train"].window_lengths.sum()
    assert cells["group_by_length"] < 0.8 * cells["random"]
