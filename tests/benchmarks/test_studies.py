"""The studies of freezing, of joint training and of pooling."""

import json
import os
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from benchmark_runs import SHORT, bench, corpus  # noqa: F401 - fixtures
from conftest import ROOT

import task_4
from benchmarks import epochs, freezing, joint, pooling, search, token_heads
from benchmarks.names import JOINT, A, B
from benchmarks.similarity_run import class_similarity
from benchmarks.study import Run, Study
from model import MultiTaskTransformer, SentenceTransformer
from multitask.config.yaml_reader import format_scalar
from multitask.encoders.pretrained import load_model, load_tokenizer
from multitask.evaluation.intervals import RowCounts
from multitask.inference.predictor import embed
from multitask.search.trials import Trial


@pytest.fixture(scope="module")
def keep(tmp_path_factory):
    """The folder in which all studies keep their runs. Starts the process from which these are forked."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT, ROOT / "tests", Path(__file__).parent))))
        forkserver.set_forkserver_preload(["quick_runs"])
        forkserver.ensure_running()
    return folder


@pytest.fixture
def words(tiny, corpus, keep):  # noqa: F811
    """The command line of a small study."""
    return ["--corpus", corpus, "--backbone", tiny, "--seeds", 1, "--epochs", 1, "--keep", keep, *SHORT]


def cells(table: list[list[str]]) -> dict[str, dict[str, str]]:
    head, _, *rows = table
    return {row[0]: dict(zip(head, row)) for row in rows}


def test_trained_parameters_and_scores_are_those_of_task_4(words, tiny, tmp_path, shell, corpus, bench):  # noqa: F811
    words = [*words, "model.token_head=linear"]
    ended = bench(freezing, *words, "--picture", tmp_path / "picture.svg")
    results, table = ended.json["results"], cells(ended.tables[0])
    assert list(results) == list(table)
    model = load_model(MultiTaskTransformer, tiny, new_heads=True, num_classes_task_a=2, num_labels_task_b=3)
    for name, frozen in (
        ("nothing frozen", {}),
        ("lowest 2 of 3 layers frozen", {"layers": 2}),
        ("backbone frozen", {"backbone": True}),
        ("… then B, head A frozen, both losses", {"task_a": True}),
    ):
        model.freeze(**frozen)
        numbers = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert table[name]["trainable"] == f"{numbers:,}" == f"{results[name]['trainable']:,}"
    alone, safe = results["task A alone"], results["… then B, backbone and head A frozen"]
    assert safe["accuracy"] == alone["accuracy"]  # exactly: nothing of task A was trained
    assert alone["entity_f1"] == [None] and table["task A alone"]["task B F1"] == "–"
    assert safe["entity_f1"] != [None]
    overrides = [f"model.backbone={tiny}", "model.freeze_backbone=false", "training.num_epochs=1", *SHORT]
    overrides += ["model.num_classes_task_a=null", "model.num_labels_task_b=null", "data.dev=null"]
    overrides += [
        "model.token_head=linear",
        "training.learning_rate=2e-4",
        "training.head_learning_rate=2e-3",
        "device=cpu",
    ]
    data = [f"data.{split}={corpus}/{split}.jsonl" for split in ("train", "test")]
    config = f"--config={ROOT}/config.yml"
    assert shell(task_4, config, *overrides, *data, "output_dir=run").status == 0
    row = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])["test"]
    assert results["nothing frozen"]["accuracy"] == [row["accuracy"]]
    assert results["nothing frozen"]["entity_f1"] == [row["entity_f1"]]
    again = bench(freezing, *words)
    assert again.json["results"] == results  # also the seconds: every run was kept


def test_one_model_is_compared_with_two_on_the_same_rows(words, bench):  # noqa: F811
    ended = bench(joint, *words, "--shares", 0.5, 1, "--turns", 1)
    results, (kinds, differences, weightings, cosines, curves) = ended.json["results"], ended.tables
    a, b = results["kinds"]["task A alone"], results["kinds"]["task B alone"]
    both, two = results["kinds"]["both in one model"], results["kinds"]["two models"]
    assert (two["accuracy"], two["entity_f1"]) == (a["accuracy"], b["entity_f1"])
    assert two["total_seconds"] == [pytest.approx(a["total_seconds"][0] + b["total_seconds"][0])]
    for name, d in results["differences"].items():
        assert d["difference"] == pytest.approx(both[name][0] - two[name][0])
    assert list(cells(differences)) == ["task A accuracy", "task B F1", "whole sentences"]
    assert set(results["weightings"]) == set(joint.WEIGHTINGS)
    assert (
        cells(weightings)["3 : 1"]["task A accuracy"]
        == f"{results['weightings']['3 : 1']['accuracy'][0]:.3f}"
    )
    alone = bench(joint, *words, "--shares", 1, "--turns", 0, "--weightings").json["results"]
    assert alone["differences"] == results["differences"]
    assert not alone["weightings"] and not alone["gradient_cosine"]
    assert len(results["gradient_cosine"]) == len(cosines[0]) - 1 == 1
    assert all(-1 <= cosine <= 1 for cosine in results["gradient_cosine"])
    half, whole = results["curves"].values()
    assert half["rows"] == whole["rows"] / 2 == ended.json["rows"] / 2
    assert whole["task A alone"]["accuracy"] == a["accuracy"]
    assert [row[0] for row in curves[2:]] == [str(half["rows"]), str(whole["rows"])]
    assert cells(kinds)["task A alone"]["task B F1"] == "–"


def test_equal_compute_gives_one_model_twice_the_epochs(words, bench, shell):  # noqa: F811
    words = [*words, "training.loss_weights.task_b=4"]
    at = words.index("--epochs")
    weighted = ["--weightings", "1 : 3", "--weighted-budgets", 1]
    by_epochs = [*words[:at], "--budgets", 1, 2, "--longest", 1, *weighted, *words[at + 2 :]]
    ended = bench(epochs, *by_epochs)
    results, (curves, differences, weightings) = ended.json["results"], ended.tables
    scores = results["curves"]
    for kind, ends in {"equal epochs": {"1": "1", "2": "2"}, "equal compute": {"1": "2"}}.items():
        assert list(results["differences"][kind]) == list(ends)
        for two, one in ends.items():
            for name, alone in {"accuracy": A, "entity_f1": B}.items():
                difference = scores[JOINT][one][name][0] - scores[alone][two][name][0]
                found = results["differences"][kind][two][name]["difference"]
                assert found == pytest.approx(difference)
    assert [row[:3] for row in differences[4:5]] == [["equal compute", "2", "1"]]
    assert scores[JOINT]["2"]["trained_epochs"] == [2]
    assert [row[0] for row in curves[2:]] == ["1", "2", "until dev fell (1 / 1 / 1)"]
    assert [row[0] for row in weightings[2:]] == ["1 : 4", "1 : 3"]
    once = bench(joint, *words, "--shares", 1, "--turns", 0, "--weightings").json["results"]["kinds"]
    for kind in (JOINT, A, B):
        assert once[kind].items() >= {name: scores[kind]["1"][name] for name in joint.FIGURES}.items()
    planned = bench(epochs, *by_epochs, "--longest", 0)
    assert planned.json["results"]["differences"] == {**results["differences"], "converged": {}}
    assert planned.tables[0][2:] == curves[2:-1]
    refused = shell(epochs, *by_epochs, "--budgets", 2, 1)
    assert refused == (2, "", "error: --budgets must rise, from 1 or more\n")


def test_two_models_match_exactly_where_both_do():
    ids = np.array([0, 1, 1, 0])
    none, counts = np.full(4, -1), np.array([1, 0, 2, 1])
    a = RowCounts(ids, np.array([0, 1, 0, 0]), none, none, none, np.array([1, 1, 0, -1]))
    b = RowCounts(none, none, counts, counts + 1, counts, np.array([1, 0, 1, 1]))
    both = joint.combine(a, b)
    assert both.whole.tolist() == [1, 0, 0, -1]
    assert both.predicted_class is a.predicted_class and both.predicted is b.predicted


@pytest.fixture
def study(tiny, corpus, keep, tmp_path):  # noqa: F811
    """A study of two seeds and 8 rows."""
    arguments = SimpleNamespace(seeds=2, jobs=2, epochs=1, keep=tmp_path / "runs", corpus=corpus, limit=8)
    arguments.backbone, arguments.batch_size, arguments.device = str(tiny), 4, "cpu"
    return Study(arguments, SHORT)


def test_equal_runs_are_trained_once(study):
    found = study.outcomes([Run("one"), Run("other")], seeds=[0])
    assert found["one"] == found["other"]  # also the seconds


def test_a_smaller_share_is_part_of_a_larger_one(study):
    for seed in (0, 1):
        whole = study.rows(seed, 1.0)
        assert len(set(whole)) > 1 and len(whole) == 8
        assert study.rows(seed, 0.5) == whole[:4]
        assert study.rows(seed, 0.01) == whole[:1]
    assert study.rows(0, 1.0) != study.rows(1, 1.0)


def test_a_frozen_encoder_keeps_its_similarities_in_both_poolings(words, tiny, corpus, bench):  # noqa: F811
    ended = bench(pooling, *words)
    results = ended.json["results"]
    assert [row[:2] for row in ended.tables[0][2:]] == [name.rsplit(", ", 1) for name in results]
    rows = [json.loads(line) for line in (corpus / "test.jsonl").read_text().splitlines()]
    texts = [row.get("text") or " ".join(row["tokens"]) for row in rows]
    classes = np.array([["politics", "sports"].index(row["label"]) for row in rows])
    for kind, name in (("cls", "[CLS]"), ("mean", "mean")):
        model = load_model(SentenceTransformer, tiny, pooling=kind, max_length=32, stride=8)
        slow = class_similarity(embed(model, load_tokenizer(tiny), texts).astype(np.float64), classes)
        ours = results[f"the heads; the encoder is as it was, {name}"]
        assert (ours["nearest"], ours["pairs"]) == ([slow["nearest"]], [slow["pairs"]])


@pytest.mark.parametrize("seed", range(3))
def test_class_similarity_equals_that_of_all_pairs(seed):
    random = np.random.default_rng(seed)
    embeddings, classes = random.integers(-2, 3, (30, 3)) + 0.5, random.integers(0, 3, 30)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = np.round(unit @ unit.T, 9)
    pairs = [(cosines[i, j], classes[i] == classes[j]) for i in range(30) for j in range(i)]
    one, two = ([c for c, same in pairs if same is np.bool_(which)] for which in (True, False))
    slow = np.mean([(a > b) + 0.5 * (a == b) for a in one for b in two])
    similarity = class_similarity(embeddings, classes)
    assert similarity["pairs"] == pytest.approx(slow, abs=1e-3)


def test_the_table_of_token_heads_has_the_scores_of_the_record(words, bench):  # noqa: F811
    ended = bench(token_heads, *words)
    (_, _, *rows), results = ended.tables[0], ended.json["results"]
    assert [row[:2] for row in rows] == [list(names) for names in token_heads.RUNS]
    for row in rows:
        r = results[", ".join(row[:2])]
        assert row[2:4] == [f"{r[name][0]:.3f}" for name in ("accuracy", "entity_f1")]
    assert results["everything, linear"]["entity_f1"] != results["everything, convolution"]["entity_f1"]


def test_what_a_search_finds_is_tested_with_other_rows(words, bench, tmp_path):  # noqa: F811
    limited = [*words, "--limit", 8, "--keep", tmp_path / "kept", "--minutes"]
    begun = bench(search, *limited, 1e-6).json  # the first trial in any case
    assert len(begun["results"]["trials"]) == 1 and begun["seeds"] == [0, 1]
    assert list(begun["results"]["test"]) == ["as they are"]  # which are the best so far
    ended = bench(search, *limited, 0.03)
    found, settings, test = ended.tables
    trials = ended.json["results"]["trials"]
    assert len(trials) > 1 and trials[0] == begun["results"]["trials"][0]
    assert sum(trial["seconds"] for trial in trials) <= 60 * 0.03
    best = max((trial for trial in trials if trial["state"] == "complete"), key=lambda trial: trial["score"])
    assert found[-1][1] == str(len(trials)) and found[-1][3] == f"{best['score']:.4f}"
    assert settings[-1][1:] == [format_scalar(value) for value in best["settings"].values()]
    assert ended.json["results"]["test"].items() >= begun["results"]["test"].items()
    overrides = [f"{key}={format_scalar(value)}" for key, value in best["settings"].items()]
    specs = [json.loads(path.read_text()) for path in (tmp_path / "kept").glob("*/spec.json")]
    assert any({*overrides, "training.seed=1"} <= {*spec.get("overrides", ())} for spec in specs)
    assert [row[0] for row in test[2:]] == list(ended.json["results"]["test"])


def test_the_best_trial_is_compared_with_its_epochs_alone():
    def trial(score, epochs, dropout, state="complete"):
        return Trial({"training.num_epochs": epochs, "model.dropout": dropout}, state, score, {}, 1.0)

    def tested(*trials):
        return {name: tuple(values.values()) for name, values in search.compared(trials).items()}

    first = trial(0.5, 3, 0.1)
    begun = {"as they are": (3, 0.1)}
    assert tested(first) == tested(first, trial(0.9, 6, 0.3, "pruned")) == begun
    found = tested(first, trial(0.7, 6, 0.2), trial(0.6, 5, 0.0))
    assert found == begun | {"with the best trial's epochs": (6, 0.1), "of the best trial": (6, 0.2)}
    assert list(found) == ["as they are", "with the best trial's epochs", "of the best trial"]
    assert tested(first, trial(0.7, 3, 0.2)) == begun | {"of the best trial": (3, 0.2)}
    assert tested(first, trial(0.7, 6, 0.1)) == begun | {"with the best trial's epochs": (6, 0.1)}
