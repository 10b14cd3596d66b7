"""Scores of entities and words are probabilities of the model, at its temperatures."""

import copy

import numpy as np
import pytest
import torch
from random_models import LABELS, TEXTS

from multitask.data.corpus import encode
from multitask.data.examples import example_from_text
from multitask.data.labels import LabelSpace
from multitask.inference.predictor import Predictor
from multitask.inference.runner import run_model


def type_probabilities(prediction, entity, word_probabilities):
    """The summed probabilities (words,) of both tags of an entity's type, for the words of the entity."""
    offsets = example_from_text(prediction.text).offsets
    words = [i for i, (start, _) in enumerate(offsets) if entity.start <= start < entity.end]
    tags = [LABELS.tags.index(f"{prefix}-{entity.label}") for prefix in "BI"]
    return word_probabilities[words][:, tags].sum(1)


def test_an_entity_has_the_mean_probability_of_its_type(random_predictor):
    (prediction,) = random_predictor.predict(["anna won in paris and annason"])
    corpus = encode([example_from_text(prediction.text)], random_predictor.tokenizer, LABELS, 24, 6)
    (out,) = run_model(random_predictor.runner, corpus)
    probabilities = torch.tensor(out.word_logits).softmax(-1)
    assert prediction.entities
    for entity in prediction.entities:
        expected = type_probabilities(prediction, entity, probabilities).mean().item()
        assert entity.score == pytest.approx(expected, abs=1e-5)


def test_temperatures_change_scores_but_no_label(random_model, tokenizer):
    plain = Predictor(random_model, tokenizer, LABELS).predict(TEXTS)
    warm = Predictor(random_model, tokenizer, LABELS)
    warm.config = copy.deepcopy(random_model.config)
    warm.config.temperature_task_a, warm.config.temperature_task_b = 3.0, 5.0
    corpus = encode(list(map(example_from_text, TEXTS)), tokenizer, LABELS, 24, 6)
    (out,) = run_model(warm.runner, corpus)
    by_class = torch.tensor(out.sentence_logits / 3).softmax(-1).numpy()
    by_word = np.split(torch.tensor(out.word_logits / 5).softmax(-1).numpy(), corpus.word_rows[1:-1])
    predictions = warm.predict(TEXTS)
    for prediction, before, row, words in zip(predictions, plain, by_class, by_word, strict=True):
        assert [e[:4] for e in prediction.entities] == [e[:4] for e in before.entities]
        assert prediction.label == before.label
        if prediction.text:  # a blank text has no probabilities
            np.testing.assert_allclose(list(prediction.probabilities.values()), row, atol=1e-6)
        for entity in prediction.entities:
            expected = type_probabilities(prediction, entity, words).mean()
            assert entity.score == pytest.approx(expected, abs=1e-6)
    assert any(prediction.entities for prediction in predictions)


@pytest.mark.parametrize("scheme", ["IO", "BIO"])
def test_words_have_the_tag_of_the_best_sequence_and_its_probability(random_model, tokenizer, scheme):
    model = copy.deepcopy(random_model)
    model.config.temperature_task_b = 0.5
    types = ("A", "B") if scheme == "BIO" else ("A", "B", "C", "D")
    predictor = Predictor(model, tokenizer, LabelSpace(("x", "y", "z"), types, scheme))
    examples = [example_from_text(text) for text in ("Anna won in Paris.", "", "the vote " * 40)]
    predictions = predictor.predict_examples(examples, words=True)
    without_words = [prediction._replace(words=None) for prediction in predictions]
    assert without_words == predictor.predict_examples(examples)
    corpus = encode(examples, tokenizer, predictor.labels, model.config.max_length, model.config.stride)
    logits = np.concatenate([out.word_logits for out in run_model(predictor.runner, corpus)])
    tags = predictor.labels.decode(logits, corpus.word_rows)
    words = [word for prediction in predictions for word in prediction.words]
    assert [word.tag for word in words] == [predictor.labels.tags[tag] for tag in tags]
    expected = torch.tensor(logits / 0.5).softmax(1)[torch.arange(len(tags)), torch.tensor(tags)]
    np.testing.assert_allclose([word.score for word in words], expected, rtol=1e-5)
    for example, prediction in zip(examples, predictions):
        assert [(word.start, word.end) for word in prediction.words] == list(example.offsets)
