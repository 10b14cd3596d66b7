"""The model card: its facts are those of the run, its code runs, and no name breaks its markup."""

import html
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st

import task_4
import task_5
from model import MultiTaskTransformer
from multitask.config.loading import load_settings
from multitask.config.schema import DataSettings, Settings
from multitask.data.labels import LabelSpace
from multitask.encoders.pretrained import Backbone, load_model
from multitask.encoders.thresholds import FILE, Step, TaskThresholds, Thresholds, read_thresholds
from multitask.evaluation.selective import LEVELS
from multitask.export.model_card import escaped, model_card
from multitask.training.progress import Progress
from token_heads import TOKEN_HEADS

LINEAR = Settings.model_validate({"model": {"token_head": "linear"}})
HOSTILE = [
    "a|b",
    "`x`",
    "</table><script>",
    "---",
    "[x](y)",
    "_em_",
    "two\nlines",
    "```\n# h",
    "&amp;",
    "\\|",
]


def tables(card: str) -> list[list[list[str]]]:
    """The cells of all tables; a cell ends at each | without a backslash before it."""
    result = [[]]
    for line in card.split("\n"):
        if not line.startswith("|"):
            result += [[]] if result[-1] else []
        elif not re.fullmatch(r"\| (--- \| )*--- \|", line):
            result[-1].append([html.unescape(c) for c in re.split(r" (?<!\\)\| ", line[2:-2])])
    return [table for table in result if table]


def parts(card: str) -> tuple[dict, str, str]:
    """The YAML header, the text, and the settings of a card."""
    _, front, text = card.split("---\n", 2)
    text, settings = text.split("## Settings\n\n")
    fence = re.match("`+", settings)[0]
    assert settings.startswith(f"{fence}yaml\n") and settings.endswith(f"\n{fence}\n")
    settings = settings.removeprefix(f"{fence}yaml\n").removesuffix(f"{fence}\n")
    assert fence not in settings
    return yaml.safe_load(front), text, settings


def test_a_card_has_the_facts_of_the_run(shell, settings_for, rows, write_rows, tmp_path):
    for number, name in enumerate(HOSTILE):
        tokens = {"tokens": ["the", "chip"], "tags": ["O", f"B-{name}"], "label": f"c{name}"}
        rows += [tokens] * (number + 1)
    path = write_rows("a|```b.jsonl", rows)
    every = [f"data.{split}={yaml.safe_dump(path).strip()}" for split in ("train", "dev")]
    sizes = ["model.num_classes_task_a=null", "model.num_labels_task_b=null"]
    ended = shell(task_4, *settings_for, *every, *sizes, "data.test=null")
    assert ended.status == 0, ended.err
    front, text, settings = parts((tmp_path / "run/model/README.md").read_text())
    assert front["library_name"] == "transformers"
    assert "sentence-transformers" in front["tags"] and not front.keys() & {"base_model", "license"}
    (tmp_path / "again.yml").write_text(settings)
    assert load_settings("again.yml", []) == load_settings("run/config.yml", [])
    scores, classes, types, files = tables(text)
    assert [row[0] for row in scores] == ["split", "dev"]
    counts = {f"c{name}": [str(n), str(n)] for n, name in enumerate(HOSTILE, 1)}
    counts |= {"politics": ["3", "3"], "sports": ["4", "4"]}
    assert {row[0]: row[1:] for row in classes[1:]} == counts
    assert {row[0] for row in types[1:]} == {"LOC", "PER", *HOSTILE}
    total = str(len(rows))
    assert files == [
        ["split", "file", "rows"],
        *([split, "a|```b.jsonl", total] for split in ("train", "dev")),
    ]
    assert str(tmp_path) not in text


@given(st.text(max_size=20))
def test_any_name_is_one_cell_of_text(name):
    text = escaped(name)
    assert html.unescape(text) == name or not name.isprintable()
    assert not re.search(r"[|`<>\[\]*\\\n\r#~]|(?<!&)#", re.sub(r"&#\d+;", "", text))


def test_a_hub_name_is_the_base_model_and_a_folder_is_none(tiny):
    def header(folder, name):
        labels = LabelSpace(("a",), ("X",))
        return parts(model_card(LINEAR, Backbone(folder, name), labels, {}, None))[0]

    assert header(tiny, "someone/some-bert")["base_model"] == "someone/some-bert"
    assert header(tiny, "all-MiniLM-L6-v2")["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert "base_model" not in header(tiny, str(tiny))
    assert not header(tiny, str(tiny)).keys() & {"model-index", "model_name", "metrics"}, (
        "there are no scores"
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_any_file_name_gives_a_header_that_parses(tiny, name):
    settings = LINEAR.model_copy(update={"data": DataSettings(dev=(f"data/{name}.jsonl", "b.jsonl"))})
    backbone, labels = Backbone(tiny, f"someone/{name}"), LabelSpace(("a",), ("X",))
    dev = {"accuracy": 0.5, "macro_f1": 0.25, "entity_f1": None, "exact_match": None}
    card = ModelCard(model_card(settings, backbone, labels, {}, dev))
    assert card.data.base_model == f"someone/{name}"
    assert [(result.dataset_name, result.metric_value) for result in card.data.eval_results] == [
        (f"{Path(name).name}.jsonl, b.jsonl", 0.5),
        (f"{Path(name).name}.jsonl, b.jsonl", 0.25),
    ]


def test_a_card_has_the_thresholds_that_dev_sets(learned):
    thresholds, text = read_thresholds(learned), Path(learned, "README.md").read_text()
    (table,) = [table for table in tables(text) if table[0][-1] == "kept on dev"]
    expected = []
    for what, of_task in (("classes", thresholds.task_a), ("entities", thresholds.task_b)):
        for wanted in LEVELS:
            if step := of_task.lowest_for(wanted):
                expected.append([what, f"{wanted:g}", f"{step.threshold:.4f}", f"{step.share_kept:.4f}"])
    assert table[1:] == expected and expected


def test_a_card_names_only_thresholds_that_there_are(tiny):
    def card(thresholds):
        backbone, labels = Backbone(tiny, "x/y"), LabelSpace(("a",), ("X",))
        return model_card(LINEAR, backbone, labels, {}, None, None, None, thresholds)

    low, high = TaskThresholds(3, (Step(0, 0.5, 1),)), TaskThresholds(9, (Step(0.25, 0.96, 0.5),))
    assert FILE not in card(None) and FILE not in card(Thresholds(low, None))
    text = card(Thresholds(low, high))
    assert FILE in text
    assert ["entities", "0.95", "0.2500", "0.5000"] in tables(text)[0]
    assert not any(row[0] == "classes" for row in tables(text)[0])


def test_the_scores_on_dev_are_those_of_the_best_model():
    progress = Progress()
    for epoch, (score, best) in enumerate([(0.5, 1), (0.9, 2), (0.7, 2), (0.9, 2), (0.95, 5)], 1):
        progress.end_epoch({"dev": {"of": epoch}}, score, 9, None)
        assert progress.best_dev == {"of": best}


@pytest.mark.parametrize("token_head", TOKEN_HEADS)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_code_in_a_card_runs_and_gives_the_same_outputs(
    shell, settings_for, tmp_path, pooling, token_head
):
    ended = shell(task_4, *settings_for, f"model.pooling={pooling}", f"model.token_head={token_head}")
    assert ended.status == 0
    linear = token_head == "linear"
    assert ("AutoModelForTokenClassification would too" in ended.out) == (not linear)
    (tmp_path / "MODEL").symlink_to(tmp_path / "run/model")
    header, text, _ = parts((tmp_path / "MODEL/README.md").read_text())
    names: dict = {}
    with torch.inference_mode():
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            exec(block, names)
        model, batch = names["model"], names["batch"]
        hidden = model.encode(batch["input_ids"], batch["attention_mask"])
        assert torch.equal(names["hidden"], hidden)
        pooled = model.pool(hidden, batch["attention_mask"])
        assert torch.equal(torch.from_numpy(names["embeddings"]), pooled)
        if linear:
            assert torch.equal(names["tagger"](**batch).logits, names["token_logits"])
        assert ('`pipeline("ner")` refuse this folder' in text) == (not linear)
        assert ("pipeline_tag" in header) == linear
        assert torch.equal(names["sentence_logits"], model.sentence_classifier(pooled))
    (command,) = re.findall(r"```sh\n(.*?)\n```", text)
    assert shell(task_5, *shlex.split(command)[2:]).status == 0


def test_the_card_has_the_final_scores_and_the_configuration_the_temperatures(shell, settings_for):
    ended = shell(task_4, *settings_for, "training.num_epochs=4", "model.freeze_backbone=false")
    with open("run/metrics.jsonl") as file:
        *epochs, last = map(yaml.safe_load, file)
    with open("run/model/README.md") as file:
        _, text, _ = parts(file.read())
    scores, *per_label = tables(text)
    keys = ("accuracy", "macro_f1", "entity_f1", "exact_match")
    best = max(epochs, key=lambda row: (row["dev"]["accuracy"] + row["dev"]["entity_f1"], -row["epoch"]))
    for name, row in (("dev", best["dev"]), ("test", last["test"])):
        assert [name, *(f"{row[key]:.4f}" for key in keys)] in scores
    for name, *figures in per_label[0][1:] + per_label[1][1:]:
        assert re.search(rf"\n  {name} +{' +'.join(figures)}\n", ended.out)
    results = ModelCard.load("run/model/README.md").data.eval_results
    assert {(r.task_type, r.metric_name): r.metric_value for r in results} == {
        ("text-classification", "Accuracy"): last["test"]["accuracy"],
        ("text-classification", "Macro-F1"): last["test"]["macro_f1"],
        ("token-classification", "Entity F1"): last["test"]["entity_f1"],
    }
    assert {(r.dataset_name, r.dataset_split) for r in results} == {("rows.jsonl", "test")}
    config = load_model(MultiTaskTransformer, "run/model").config
    written = [f"{getattr(config, f'temperature_task_{task}'):.4g}" for task in "ab"]
    assert written != ["1", "1"]
    assert f"logits are divided by {written[0]} (A) and {written[1]} (B)" in text
