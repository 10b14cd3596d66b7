"""What is scored is what prediction gives: on raw texts, the scores of `evaluate` are those of `predict`."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import read_corpus
from test_corpus_predictions import random_predictor, random_rows
from transformers import BertConfig, BertModel, BertTokenizer
from unicode_text import WHITE_SPACE
from unspaced_corpora import sentences

import task_4
import task_5
from multitask.data.detokenizer import detokenize
from multitask.data.examples import raw_example
from multitask.encoders.saving import save_model
from multitask.evaluation.evaluate import evaluate_file
from multitask.evaluation.metrics import Score
from multitask.inference.predictor import Predictor

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="module")
def predictor(tiny, tokenizer):
    return random_predictor(tiny, tokenizer)


def entity_score(predictor, rows) -> Score:
    """Compare the output of `predict` with the gold spans of rows of raw text, character by character."""
    rows = [row for row in rows if "entities" in row]
    predictions = predictor.predict([row["text"] for row in rows])
    correct = predicted = gold = 0
    for row, prediction in zip(rows, predictions):
        found = {(entity.start, entity.end, entity.label) for entity in prediction.entities}
        right = {tuple(entity.values()) for entity in row["entities"]}
        correct, predicted, gold = correct + len(found & right), predicted + len(found), gold + len(right)
    return Score(correct, predicted, gold)


def evaluated(predictor, rows, raw=False):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return evaluate_file(predictor, "model", str(path), raw=raw).scores


@st.composite
def rows_of_text(draw):
    """Rows with any text and any spans that don't overlap and hold more than white space."""
    letters = st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("ab .-'/&@字กำー\u0301"))
    text = draw(st.text(letters, min_size=1, max_size=40).filter(lambda text: text.strip(WHITE_SPACE)))
    ends = sorted(draw(st.sets(st.integers(0, len(text)), max_size=8)))
    types = st.sampled_from(["LOC", "PER", "GPE"])
    spans = [(a, b) for a, b in zip(ends[::2], ends[1::2]) if text[a:b].strip(WHITE_SPACE)]
    return {"text": text, "entities": [{"start": a, "end": b, "label": draw(types)} for a, b in spans]}


@settings(max_examples=60)
@given(st.lists(rows_of_text(), min_size=1, max_size=6))
def test_entity_scores_on_raw_texts_are_those_of_predict(predictor, rows):
    assert evaluated(predictor, rows).task_b.micro == entity_score(predictor, rows)


def test_rows_of_tokens_are_scored_on_their_raw_text(predictor):
    rows = random_rows(60)
    for row in rows[::4]:  # names that raw text does not separate as tokens do
        row["tokens"][:1] = ["@", "anna", "'s"]
        if "tags" in row:
            row["tags"][:1] = ["O", "B-PER", "O"]
    raw_rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        examples = read_corpus([str(path)]).examples
    for row, example in zip(rows, examples, strict=True):
        raw = {"text": row["text"]} if "text" in row else {"text": detokenize(row["tokens"])[0]}
        if example.spans is not None:
            offsets = example.offsets or detokenize(row["tokens"])[1]
            raw["entities"] = [
                {"start": offsets[span.start][0], "end": offsets[span.end - 1][1], "label": span.label}
                for span in example.spans
            ]
        raw_rows.append(raw | {key: row[key] for key in ("label",) if key in row})
        assert raw_example(raw_example(example)) == raw_example(example)
    scores = evaluated(predictor, rows, raw=True)
    assert scores == evaluated(predictor, raw_rows) == evaluated(predictor, raw_rows, raw=True)
    assert scores.task_b.micro == entity_score(predictor, raw_rows)
    assert scores != evaluated(predictor, rows)


def test_text_of_a_row_of_tokens_is_its_raw_text(predictor):
    rows = [{"tokens": ["anna", "'s", "vote"], "text": "anna  's vote", "tags": ["B-PER", "O", "O"]}]
    texts = [{"text": "anna  's vote", "entities": [{"start": 0, "end": 4, "label": "PER"}]}]
    assert evaluated(predictor, rows, raw=True) == evaluated(predictor, texts)


def test_the_command_scores_raw_texts_and_lists_their_mistakes(predictor, tiny, tmp_path, shell, write_rows):
    model, labels = predictor.runner.model, predictor.labels
    model.config.classes, model.config.tag_scheme = list(labels.classes), labels.scheme
    model.config.id2label = dict(enumerate(labels.tags))
    model.config.label2id = {tag: i for i, tag in enumerate(labels.tags)}
    save_model(model, tiny, tmp_path / "model")
    path = write_rows("rows.jsonl", [{"tokens": ["do", "n't", "won"], "tags": ["B-PER", "O", "O"]}] * 3)
    command = [
        "evaluate",
        path,
        "--model",
        tmp_path / "model",
        "--json",
        "--device",
        "cpu",
        "--pictures",
        "p",
    ]
    words, raw = (shell(task_5, *command, *more) for more in ([], ["--raw"]))
    assert (words.status, raw.status) == (0, 0), raw.err
    assert json.loads(words.out)["task_b"]["words"] == 9 and json.loads(raw.out)["task_b"]["words"] == 12
    assert "3 of 3 entities (100.0%) begin or end inside a word" in raw.err
    assert '"don" → "do|n"' in raw.err and "inside a word" not in words.err
    golds = {mistake["right"] for mistake in json.loads(raw.out)["mistakes"]}
    assert "PER [do]" in golds


@pytest.mark.parametrize("language", ["zh", "ja", "th"])
def test_languages_without_blanks_are_predicted_as_they_are_scored(
    language, tmp_path, shell, write_rows, monkeypatch
):
    rows = sentences(language)
    assert len(rows) == 60
    monkeypatch.chdir(tmp_path)
    characters = sorted({character.lower() for row in rows for character in row["text"]} - {" "})
    vocabulary = [*SPECIAL, *characters, *(f"##{character}" for character in characters)]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    encoder = tmp_path / "encoder"
    BertTokenizer(str(tmp_path / "vocab.txt"), strip_accents=False).save_pretrained(encoder)
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    BertModel(BertConfig(vocab_size=len(vocabulary), **size, max_position_embeddings=64)).save_pretrained(
        encoder
    )
    path = write_rows("rows.jsonl", rows)
    settings = ["model.num_classes_task_a=3", "model.num_labels_task_b=3", "model.freeze_backbone=false"]
    settings += ["model.max_length=64", "model.stride=8", "training.num_epochs=40", "training.batch_size=4"]
    settings += [
        "training.learning_rate=1e-3",
        "model.dropout=0",
        f"model.backbone={encoder}",
        "device=cpu",
        "output_dir=run",
    ]
    data = [f"data.{split}={path}" for split in ("train", "dev", "test")]
    config = f"--config={Path(task_4.__file__).parent / 'config.yml'}"
    ended = shell(task_4, config, *settings, *data)
    assert ended.status == 0, ended.err
    assert "inside a word" not in ended.err
    test = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])["test"]
    score = entity_score(Predictor.from_pretrained(tmp_path / "run/model", "cpu", "fp32"), rows)
    assert score.f1 == test["entity_f1"] > 0.9
    assert score.gold == sum(len(row["entities"]) for row in rows)
