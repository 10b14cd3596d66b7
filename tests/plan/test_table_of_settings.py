"""docs/training.md says what happens to settings that can't do what they say. Here each cell happens."""

import json
import re
from typing import NamedTuple

import pytest
import torch
from conftest import ROOT
from family_folders import make_encoder

import task_4
from multitask.config.help_text import flatten_settings
from multitask.config.schema import Settings

COLUMNS = "effect", "splits", "start"  # of the table
ROWS = [
    {"tokens": [f"{first}{n}", second], "tags": [tag, "O"], "label": label}
    for first, second, tag, label in (("a", "b", "B-PER", "sports"), ("c", "d", "B-LOC", "politics"))
    for n in range(5)
]
DEV = [{**row, "tokens": ["dev", *row["tokens"]], "tags": ["O", *row["tags"]]} for row in ROWS]


def kept(rows, *keys):
    return [{key: row[key] for key in ("tokens", *keys)} for row in rows]


FILES = {
    "train": ROWS,
    "dev": DEV,
    "classes": kept(ROWS, "label"),
    "entities": kept(ROWS, "tags"),
    "one_class": ROWS[:5],
    "two_annotations": [*ROWS, {**ROWS[0], "label": "politics"}],
    "adjacent": [*ROWS, {"tokens": ["e", "f"], "tags": ["B-PER", "B-PER"]}],
    "weather": [
        *ROWS,
        *(
            {**row, "tokens": ["w", *row["tokens"]], "tags": ["O", *row["tags"]], "label": "weather"}
            for row in ROWS[:5]
        ),
    ],
    "other_type": [*DEV, {"tokens": ["g"], "tags": ["B-ORG"]}],
    "dev_weather": [*DEV, {"tokens": ["g"], "label": "weather"}],
    "dev_classes": kept(DEV, "label"),
    "nothing": [{"tokens": ["g"]}],
}
SHORT = {
    "TUNED": "model.freeze_backbone=false",
    "A": "training.task=task_a",
    "B": "training.task=task_b",
    "BIO": "data.tag_scheme=BIO",
}
OTHER_ENCODERS = {"DEBERTA": "deberta-v2", "MODERNBERT": "modernbert"}
# a key, then its cases: column, what happens, settings (=2 sets the key; with START, the run begins with a
# model of both heads that learned BIO, with DEBERTA and MODERNBERT with such an encoder; TEACHER is that
# model, TINY an encoder alone), what the run says
CASES = """
model.revision
  effect refuses: =main → model.revision is about the hub
training.precision
  effect warns: =tf32 → training.precision is tf32, and has no effect: TF32 is CUDA's
model.num_classes_task_a
  effect does: B data.dev=null =7 →
  splits warns: data.dev=dev_weather → dev has the class 'weather' 1 times, train never
  start refuses: START =5 → is 5, but the starting model has 2
model.num_labels_task_b
  effect does: A data.dev=null =7 →
  splits warns: data.dev=other_type → dev has the type 'ORG' 1 times, train never
  start refuses: START BIO =9 → is 9, but the starting model has 5
model.freeze_backbone
  start warns: START B BIO TUNED → task_a is not trained, but the encoder
model.keep_layers
  effect warns: =3 → model.keep_layers is 3, and has no effect: the encoder has no other layers
  start refuses: =4 → model.keep_layers is 4, but the encoder has 3 layers
  start refuses: MODERNBERT =[2] → model.keep_layers is [2], which leaves out layer 1, but ModernBERT
  start refuses: START BIO =1 → the starting model's token head reads all of them: set model.new_heads
  start refuses: START B BIO =1 model.new_heads=task_b → changes what task_a predicts, which is not trained
model.freeze_layers
  effect refuses: =1 → model.freeze_layers is 1, but model.freeze_backbone
  start refuses: TUNED =9 → model.freeze_layers is 9, but the encoder has 3
model.freeze_task_a
  effect warns: B =true → model.freeze_task_a is true, and has no effect
  start refuses: =true → model.freeze_task_a is true, but the head is new
model.freeze_task_b
  effect warns: A =true → model.freeze_task_b is true, and has no effect
  start refuses: =true → model.freeze_task_b is true, but the head is new
model.lora.rank
  effect refuses: =2 → model.lora.rank is 2, but model.freeze_backbone
  start refuses: =2 TUNED model.freeze_layers=3 → no layer is left for model.lora
model.lora.alpha
  effect warns: =3 → model.lora.alpha is 3.0, and has no
model.lora.dropout
  effect warns: =0.5 → model.lora.dropout is 0.5, and
model.lora.targets
  effect warns: =key → model.lora.targets is key, and
  start warns: MODERNBERT TUNED model.lora.rank=2 =query → ModernBERT has one matrix for query, key, value
model.attention
  start refuses: DEBERTA =sdpa → model.attention is sdpa, but transformers' DeBERTa has only eager
model.pooling
  start refuses: START BIO =cls → model.pooling is cls, but the
model.token_head
  start refuses: START BIO =linear → model.token_head is linear, but the
model.attention_dropout
  effect warns: =0.1 → model.attention_dropout is 0.1, and has no effect
model.max_length
  start refuses: START A =30 → model.max_length is 30, but task_b is not
model.stride
  start refuses: START A =3 → model.stride is 3, but task_b is not
model.new_heads
  effect refuses: A =task_b → model.new_heads has task_b, but training.task is
  start warns: =task_b → model.new_heads is task_b, and has no effect
data.train
  effect refuses: =nothing → no row of data.train has a label or an entity
  effect refuses: =one_class → data.train has a single class
  splits warns: =two_annotations → 1 texts have different classes in different rows
  start warns: START A =weather → train also has weather
data.dev
  effect refuses: =nothing → data.dev has no annotation of both
  splits warns: =train → 10 rows of dev are also in train
  splits warns: =dev_classes → data.dev has no annotation of task_b
data.test
  effect refuses: =nothing → data.test has no annotation of both
  splits warns: =dev → 10 rows of test are also in dev
data.sampling_temperature
  effect refuses: =2 → data.sampling_temperature mixes files
data.tag_scheme
  effect warns: A BIO → data.tag_scheme is BIO, and has no effect
  splits warns: data.train=adjacent → IO merges them, data.tag_scheme=BIO does not
  start warns: START → learned BIO tags, and data.tag_scheme is IO
training.task
  splits refuses: data.train=classes B → no row of data.train has an entity
training.learning_rate
  effect warns: =5 → training.learning_rate is 5.0, and has no effect
  effect warns: =5 TUNED model.freeze_layers=3 → all of the encoder
training.head_learning_rate
  effect warns: START BIO TUNED model.freeze_task_a=true model.freeze_task_b=true =5 → no head is trained
training.layer_decay
  effect refuses: =0.5 → training.layer_decay needs
training.gradient_checkpointing
  effect refuses: =true → gradient_checkpointing needs an
training.gradient_cosine
  effect refuses: =true → training.gradient_cosine needs an encoder
  effect refuses: A TUNED =true → gradient_cosine is about two
  effect refuses: TUNED model.freeze_layers=3 =true → all of the encoder: training.gradient_cosine needs
training.loss_weights.task_a
  effect warns: A =3 → training.loss_weights.task_a is 3.0, and
training.loss_weights.task_b
  effect warns: A =3 → training.loss_weights.task_b is 3.0, and
training.loss_weighting
  effect refuses: A =dwa → training.loss_weighting is about two tasks
training.dwa_temperature
  effect warns: =3 → training.dwa_temperature is 3.0, and has no effect
training.class_weights
  effect refuses: ={"sport":2} → named 'sport'; did you mean sports?
  effect warns: =balanced distillation.teacher=TEACHER distillation.share=1 → labels have no part in the loss
training.label_smoothing
  effect warns: =0.1 distillation.teacher=TEACHER distillation.share=1 → labels have no part in the loss
training.cuda_graphs
  effect warns: =false → training.cuda_graphs is false, and has no effect
training.cache_features
  effect warns: TUNED =false → training.cache_features is false, and
training.feature_memory
  effect warns: TUNED =0 → training.feature_memory is 0.0, and has no
training.occurring_rows
  effect warns: =false → training.occurring_rows is false, and has no
training.fast_dropout
  effect warns: =false model.dropout=0 → training.fast_dropout is false
training.select_by
  effect warns: =loss data.dev=null → training.select_by is loss, and has
  splits refuses: =entity_f1 data.dev=dev_classes → select_by is entity_f1, but
training.early_stopping
  effect refuses: =1 data.dev=null → early_stopping needs data.dev
  effect warns: =3 → training.early_stopping is 3, and has no effect
  splits refuses: =1 data.dev=dev_classes → training.early_stopping would
distillation.teacher
  effect warns: =TEACHER distillation.share=0 → and has no effect: distillation.share is 0
  effect refuses: =TINY → an encoder without trained heads
  splits refuses: =rows → no row of data.train has probabilities or tag_probabilities
  splits refuses: =TEACHER data.train=weather → does not know classes of train: weather
  splits warns: =TEACHER data.train=classes → also knows types of which train has no type: LOC, PER
distillation.temperature
  effect warns: =3 → distillation.temperature is 3.0, and has no effect: distillation.teacher is null
distillation.share
  effect warns: =0.2 → distillation.share is 0.2, and has no effect: distillation.teacher is null
device
  effect warns: =cuda → CUDA is not available: using the CPU
output_dir
  effect refuses: =full → output_dir: full is not empty
"""


class Case(NamedTuple):
    """What happens to a setting in one situation."""

    key: str
    column: str
    outcome: str
    settings: list[str]
    message: str


def read_cases() -> list[Case]:
    cases, key = [], ""
    for line in CASES.strip().splitlines():
        if not line.startswith(" "):
            key = line
            continue
        column, outcome, words, message = re.fullmatch(r"  (\w+) (\w+): (.*?)→(.*)", line).groups()
        words = [SHORT.get(word, key + word if word.startswith("=") else word) for word in words.split()]
        cases.append(Case(key, column, outcome, words, message.strip()))
    return cases


def table() -> dict[str, dict[str, set[str]]]:
    """Key → column → what the cell says happens: does, warns, refuses."""
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    text = page.partition("\n## Settings that can't do what they say\n")[2].partition("\n## ")[0]
    said = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            keys, *cells = line.strip("| ").split(" | ")
            outcomes = [set(re.findall(r"does|warns|refuses", cell.lower())) for cell in cells]
            said |= {key: dict(zip(COLUMNS, outcomes)) for key in re.findall(r"`([^`]+)`", keys)}
    return said


def test_the_table_has_each_setting_and_each_cell_has_a_case():
    said, cases = table(), read_cases()
    assert set(said) == set(flatten_settings(Settings()))
    for key, columns in said.items():
        for column, outcomes in columns.items():
            found = {case.outcome for case in cases if (case.key, case.column) == (key, column)}
            assert found == outcomes, (key, column)


@pytest.mark.parametrize("case", read_cases(), ids=lambda case: " ".join([case.key, *case.settings])[:60])
def test_what_the_table_says_happens(shell, tiny, trained, tmp_path, case):
    if case.key == "device" and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for name, rows in FILES.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    start = trained if "START" in case.settings else tiny
    for word in OTHER_ENCODERS.keys() & {*case.settings}:
        texts = [" ".join(row["tokens"]) for row in DEV]
        start = make_encoder(OTHER_ENCODERS[word], tmp_path / "other", texts)
    words = [word for word in case.settings if word not in ("START", *OTHER_ENCODERS)]
    words = [re.sub(r"^(data\.(?:train|dev|test))=(?!null)(.*)", r"\1=\2.jsonl", word) for word in words]
    words = [word.replace("=TEACHER", f"={trained}").replace("=TINY", f"={tiny}") for word in words]
    settings = [f"model.backbone={start}", "model.num_classes_task_a=null", "model.num_labels_task_b=null"]
    settings += ["data.train=train.jsonl", "data.dev=dev.jsonl", "data.test=null"]
    settings += ["training.num_epochs=2", "device=cpu"]
    ended = shell(task_4, f"--config={ROOT / 'config.yml'}", *settings, *words, "--check")
    assert ended.status == (2 if case.outcome == "refuses" else 0), ended.err
    assert case.message in ended.err
    assert case.outcome != "does" or ended.err == ""
