"""Predictor gives the outputs of its model, for any texts."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import LABELS, TEXTS

from multitask.data.corpus import encode
from multitask.data.examples import example_from_text, example_from_words
from multitask.data.labels import LabelSpace
from multitask.data.words import split_words
from multitask.encoders.tag_chain import log_marginals
from multitask.inference import runner
from multitask.inference.predictor import Predictor
from multitask.inference.runner import run_model
from multitask.inference.torch_runner import TorchRunner


def test_a_short_text_gets_the_outputs_of_the_model(random_model, random_predictor, tokenizer):
    text = "anna won in paris"
    ids = torch.tensor([tokenizer.encode(text).ids])
    sentence_logits, token_logits = random_model(ids)
    (predicted,) = random_predictor.predict([text], embeddings=True)
    expected = sentence_logits.softmax(-1)[0].tolist()
    assert list(predicted.probabilities.values()) == pytest.approx(expected, abs=1e-6)
    assert predicted.label == LABELS.classes[int(sentence_logits.argmax())]
    np.testing.assert_allclose(
        predicted.embedding, random_model.encode(ids, torch.ones_like(ids))[0, 0].detach(), atol=1e-6
    )
    corpus = encode([example_from_text(text)], tokenizer, LABELS, 24, 6)
    (out,) = run_model(TorchRunner(random_model), corpus)
    expected = token_logits[0, corpus.word_first + 1].detach().numpy()
    if random_model.transitions:
        transitions = random_model.transitions().detach().numpy()
        expected = log_marginals(expected, transitions, np.array([0, len(expected)]))
    np.testing.assert_allclose(out.word_logits, expected, atol=1e-5)


def test_neighbours_chunks_and_batches_change_nothing(random_predictor, monkeypatch):
    together = random_predictor.predict(TEXTS * 3, embeddings=True)
    monkeypatch.setattr(runner, "MAX_ROWS", 2)
    monkeypatch.setattr(runner, "MAX_WORDS", 20)
    monkeypatch.setattr(random_predictor.runner, "batch_tokens", 30)
    rows_done = []
    again = random_predictor.predict(TEXTS * 3, embeddings=True, progress=rows_done.append)
    assert sum(rows_done) == len(TEXTS) * 3
    for text, a, b in zip(TEXTS * 3, together, again):
        alone = random_predictor.predict([text], embeddings=True)[0]
        for other in (b, alone):
            assert (a.text, a.label) == (other.text, other.label) == (text, other.label)
            assert [e[:4] for e in a.entities] == [e[:4] for e in other.entities]
            np.testing.assert_allclose(a.embedding, other.embedding, atol=1e-5)


@settings(max_examples=60)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), min_size=1, max_size=4))
def test_every_text_has_a_prediction_and_entities_lie_inside(random_predictor, texts):
    predictions = random_predictor.predict(texts)
    assert [p.text for p in predictions] == texts
    for p in predictions:
        if not split_words(p.text):
            assert (p.label, p.probabilities, p.entities) == (None, None, [])
            continue
        assert sum(p.probabilities.values()) == pytest.approx(1)
        assert p.label == max(p.probabilities, key=p.probabilities.get)
        for entity in p.entities:
            assert p.text[entity.start : entity.end] == entity.text != ""
            assert entity.label in LABELS.types
            assert 0 < entity.score <= 1
        assert all(a.end <= b.start for a, b in pairwise(p.entities))


@pytest.mark.parametrize("row", [*map(example_from_text, ["", " \t\n", "\u3000"]), example_from_words([])])
def test_a_blank_text_has_an_embedding_and_no_answers(random_predictor, row):
    other = example_from_text("anna")
    blank, _, last = random_predictor.predict_examples([row, other, row], embeddings=True, words=True)
    for p in (blank, last):
        assert p.text == row.text and (p.label, p.probabilities, p.entities) == (None, None, [])
        assert p.embedding.shape == (32,) and np.isfinite(p.embedding).all()
    assert random_predictor.predict([row.text])[0].label is None
    assert random_predictor.predict(["."])[0].label in LABELS.classes, "a punctuation mark is a word"


def test_an_untrained_task_has_no_prediction(random_model, tokenizer):
    (p,) = Predictor(random_model, tokenizer, LabelSpace((), ())).predict(["anna"])
    assert (p.label, p.probabilities, p.entities) == (None, None, None)
    (blank,) = Predictor(random_model, tokenizer, LabelSpace(("x", "y", "z"), ())).predict([""])
    assert (blank.label, blank.probabilities, blank.entities) == (None, None, None)


def test_a_prediction_becomes_a_row_of_json(random_predictor):
    (p,) = random_predictor.predict(
        ["anna \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")], embeddings=True
    )
    row = json.loads(json.dumps(p.to_dict()))
    assert list(row) == ["text", "label", "probabilities", "entities", "embedding"]
    assert len(row["embedding"]) == 32


def test_a_bfloat16_copy_gives_nearly_the_same(random_model, tokenizer):
    exact, bf16 = (Predictor(random_model, tokenizer, LABELS, precision) for precision in ("fp32", "bf16"))
    assert bf16.runner.model.dtype == torch.bfloat16
    assert random_model.dtype == torch.float32, "the caller's model is unchanged"
    for a, b in zip(*(predictor.predict(TEXTS, embeddings=True) for predictor in (exact, bf16))):
        assert a.probabilities == pytest.approx(b.probabilities, abs=0.05)
        np.testing.assert_allclose(a.embedding, b.embedding, atol=0.1)
        assert b.embedding.dtype == np.float32


def test_a_lone_surrogate_is_read_as_one_unknown_character(random_predictor):
    text = "anna \ud800 won in paris\udfff"
    (prediction,) = random_predictor.predict([text], embeddings=True)
    (other,) = random_predictor.predict(
        [text.replace("\ud800", "\ufffd").replace("\udfff", "\ufffd")], embeddings=True
    )
    assert prediction.text == text
    assert prediction.probabilities == other.probabilities
    assert [e[:2] + e[3:] for e in prediction.entities] == [e[:2] + e[3:] for e in other.entities]
    assert all(text[e.start : e.end] == e.text for e in prediction.entities)
