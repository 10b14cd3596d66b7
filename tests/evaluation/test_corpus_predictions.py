import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple

import numpy as np
import pytest
import torch

from model import MultiTaskTransformer
from multitask.common import distributed
from multitask.data.labels import LabelSpace
from multitask.data.splits import read_split
from multitask.data.tokenization import WordTokenizer
from multitask.evaluation import corpus_predictions
from multitask.evaluation.calibration import bin_confidences
from multitask.evaluation.corpus_predictions import predict_with_confidence
from multitask.evaluation.evaluate import evaluate
from multitask.evaluation.metrics import match_entities, score
from multitask.inference.decoding import decode_corpus
from multitask.inference.predictor import Predictor
from multitask.inference.runner import run_model

LABELS = LabelSpace(("x", "y", "z"), ("LOC", "PER"), "BIO")
TEMPERATURES = 2.0, 0.5


def random_predictor(tiny, tokenizer, labels=LABELS, seed=4):
    """A model with random heads, which predicts entities everywhere, and with temperatures."""
    torch.manual_seed(seed)
    model = MultiTaskTransformer.from_pretrained(
        tiny,
        num_classes_task_a=max(1, len(labels.classes)),
        num_labels_task_b=len(labels.tags) if labels.types else 1,
        max_length=24,
        stride=6,
        temperature_task_a=TEMPERATURES[0],
        temperature_task_b=TEMPERATURES[1],
    ).eval()
    torch.nn.init.normal_(model.classifier.weight)
    torch.nn.init.normal_(model.sentence_classifier.weight)
    return Predictor(model, tokenizer, labels, precision="fp32")


def random_rows(count, seed=0):
    """Rows with a text or words, some with an annotation missing, some with unknown labels."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        words = list(map(str, random.choice(["anna", "won", "in", "paris", "vote"], random.integers(1, 30))))
        tags = random.choice(["O", "B-LOC", "B-PER", "I-PER", "B-GPE"], len(words), p=[0.6, *[0.1] * 4])
        row = {"tokens": words, "tags": tags.tolist()}
        if number % 2:
            starts = np.cumsum([0, *(len(word) + 1 for word in words)]).tolist()
            entities = [
                {"start": starts[i], "end": starts[i] + len(words[i]), "label": tag[2:]}
                for i, tag in enumerate(row["tags"])
                if tag != "O"
            ]
            row = {"text": " ".join(words), "entities": entities}
        if number % 5 == 3:
            row.pop("tags", row.pop("entities", None))
        if number % 4:
            row["label"] = str(random.choice(["x", "y", "z", "w"]))
        rows.append(row)
    return rows


def corpus_of(path, predictor):
    config = predictor.config
    split = read_split([path], WordTokenizer(predictor.tokenizer), config.max_length, config.stride)
    return split.corpus(predictor.labels)


def probabilities(logits, temperature):
    return torch.tensor(logits / np.float32(temperature)).softmax(-1).numpy()


def decode_in_small_chunks(runner, corpus, labels, tasks, progress, rows):
    for at in range(*rows, 7):
        yield from decode_corpus(runner, corpus, labels, tasks, progress, (at, min(at + 7, rows[1])))


@pytest.mark.parametrize("scheme", ["BIO", "IO"])
def test_predictions_and_confidence_equal_those_of_the_whole_corpus_at_once(
    tiny, tokenizer, tmp_path, monkeypatch, scheme
):
    labels = LabelSpace(LABELS.classes, LABELS.types, scheme)
    predictor = random_predictor(tiny, tokenizer, labels)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in random_rows(30)))
    corpus = corpus_of(str(path), predictor)
    (out,) = run_model(predictor.runner, corpus)
    monkeypatch.setattr(corpus_predictions, "decode_corpus", decode_in_small_chunks)
    calls = []
    predictions = predict_with_confidence(predictor, corpus, calls.append)
    assert sum(calls) == 30 and len(calls) > 3

    scores = evaluate(predictor.runner, corpus, labels)
    assert score(corpus, labels, predictions.classes, predictions.tags) == scores
    for i, temperature in enumerate((1, TEMPERATURES[0])):
        expected = probabilities(out.sentence_logits, temperature)
        np.testing.assert_allclose(predictions.class_probabilities[i], expected.max(1), rtol=1e-4)
        annotated = [row for row in range(30) if corpus.row_classes[row] >= 0]
        correct = (predictions.classes == corpus.row_classes)[annotated]
        assert predictions.class_bins(corpus)[i].error == pytest.approx(
            bin_confidences(expected.max(1)[annotated], correct).error, abs=1e-4
        )
    annotated = np.repeat(corpus.row_tagged, np.diff(corpus.word_rows))
    m = match_entities(corpus, labels, predictions.tags)
    for i, temperature in enumerate((1, TEMPERATURES[1])):
        expected = probabilities(out.word_logits, temperature)
        of_tags = expected[np.arange(len(predictions.tags)), predictions.tags]
        bins = bin_confidences(of_tags[annotated], (predictions.tags == corpus.word_tags)[annotated])
        assert predictions.word_bins[i].count.sum() == annotated.sum()
        assert predictions.word_bins[i].error == pytest.approx(bins.error, abs=1e-4)
        of_types = [
            np.mean([sum(expected[w, t] for t, tag in enumerate(labels.tags) if tag.endswith(name))
                     for w in range(start, end)])
            for start, end, name in zip(m.starts, m.ends, [labels.types[kind] for kind in m.types])
        ]  # fmt: skip
        np.testing.assert_allclose(predictions.entity_scores[i], of_types, rtol=1e-4)
        assert predictions.entity_bins()[i].correct.sum() == scores.task_b.micro.correct
    outside = [expected[start:end, 0].mean() for start, end, _ in corpus.spans.T]
    np.testing.assert_allclose(predictions.outside_probabilities, outside, rtol=1e-4)
    assert corpus.spans.shape[1] > 20 and len(m.starts) > 20


def test_a_task_that_the_model_has_not_learned_is_left_out(tiny, tokenizer, write_rows):
    path = write_rows("rows.jsonl", random_rows(6))
    for labels in (LabelSpace(LABELS.classes, ()), LabelSpace((), LABELS.types, "BIO")):
        predictor = random_predictor(tiny, tokenizer, labels)
        predictions = predict_with_confidence(predictor, corpus_of(path, predictor))
        assert (predictions.classes is None, predictions.tags is None) == (
            not labels.classes,
            not labels.types,
        )


def test_rows_without_predicted_or_gold_entities_give_empty_arrays(tiny, tokenizer, write_rows):
    predictor = random_predictor(tiny, tokenizer)
    path = write_rows("plain.jsonl", [{"text": "anna", "label": "x"}, {"text": "won in paris"}])
    predictions = predict_with_confidence(predictor, corpus_of(path, predictor))
    assert predictions.entity_scores.shape == (2, 0) and predictions.outside_probabilities.shape == (0,)
    assert [bins.count.sum() for bins in predictions.word_bins] == [0, 0]


class TwoProcesses:
    """Two processes, simulated by threads that meet to exchange their parts."""

    def __init__(self, monkeypatch):
        self.mine, self.barrier, self.parts = threading.local(), threading.Barrier(2), [None, None]
        monkeypatch.setattr(distributed, "world_size", lambda: 2)
        monkeypatch.setattr(distributed, "rank", lambda: self.mine.rank)
        monkeypatch.setattr(distributed, "all_gather", self.all_gather)

    def all_gather(self, part):
        self.parts[self.mine.rank] = part
        self.barrier.wait(timeout=60)
        parts = list(self.parts)
        self.barrier.wait(timeout=60)
        return parts

    def __call__(self, work):
        def in_process(rank):
            self.mine.rank = rank
            return work()

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(in_process, range(2)))


@pytest.mark.parametrize("count", [25, 1])
def test_two_processes_share_the_rows_and_both_get_all_predictions(
    tiny, tokenizer, write_rows, monkeypatch, count
):
    predictor = random_predictor(tiny, tokenizer)
    corpus = corpus_of(write_rows("rows.jsonl", random_rows(count, seed=2)), predictor)
    alone, ranges = predict_with_confidence(predictor, corpus), []

    def decode(*arguments):
        ranges.append(arguments[-1])
        return decode_corpus(*arguments)

    monkeypatch.setattr(corpus_predictions, "decode_corpus", decode)
    for predictions in TwoProcesses(monkeypatch)(lambda: predict_with_confidence(predictor, corpus)):
        assert (predictions.classes == alone.classes).all() and (predictions.tags == alone.tags).all()
        for name in ("class_probabilities", "entity_scores", "outside_probabilities"):
            np.testing.assert_allclose(getattr(predictions, name), getattr(alone, name), atol=1e-6)
        for shared, single in zip(predictions.word_bins, alone.word_bins):
            np.testing.assert_allclose(astuple(shared), astuple(single), atol=1e-5)
        assert all((a == b).all() for a, b in zip(predictions.matches, alone.matches))
    assert sorted(ranges) == [(0, count // 2), (count // 2, count)]


def test_a_task_that_is_not_requested_is_left_out(tiny, tokenizer, write_rows):
    predictor = random_predictor(tiny, tokenizer)
    corpus = corpus_of(write_rows("rows.jsonl", random_rows(9)), predictor)
    both = predict_with_confidence(predictor, corpus)
    for task, fields in (("task_a", both._fields[:2]), ("task_b", both._fields[2:])):
        predictions = predict_with_confidence(predictor, corpus, tasks=[task])
        for name in both._fields:
            assert (getattr(predictions, name) is not None) == (name in fields)
        scores = evaluate(predictor.runner, corpus, LABELS, [task])
        assert score(corpus, LABELS, predictions.classes, predictions.tags) == scores
