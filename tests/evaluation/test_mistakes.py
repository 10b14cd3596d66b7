from itertools import pairwise

import numpy as np
import pytest
from reading import read_corpus
from test_corpus_predictions import LABELS, corpus_of, probabilities, random_predictor, random_rows

from multitask.common.errors import InputError
from multitask.data.corpus import encode
from multitask.data.examples import example_from_text
from multitask.evaluation.corpus_predictions import CorpusPredictions, predict_with_confidence
from multitask.evaluation.metrics import match_entities
from multitask.evaluation.mistakes import Mistake, most_confident_mistakes
from multitask.inference.runner import run_model


@pytest.fixture(scope="module")
def predictor(tiny, tokenizer):
    return random_predictor(tiny, tokenizer)


def all_mistakes(predictor, path, limit=10_000):
    corpus = corpus_of(path, predictor)
    return most_confident_mistakes(
        [path], corpus, predictor.labels, predict_with_confidence(predictor, corpus), limit
    )


def slow_mistakes(predictor, path):
    """(probability, line, predicted, gold), row by row, from the model's prediction for its text."""
    mistakes = []
    for example in read_corpus([path]).examples:
        text = example.text or " ".join(example.words)
        (p,) = predictor.predict([text])
        if example.label is not None and p.label != example.label:
            mistakes.append((p.probabilities[p.label], example.line, p.label, example.label))
        if example.spans is None:
            continue
        ends = np.cumsum([len(word) + 1 for word in example.words]) - 1
        gold = [
            (int(ends[a] - len(example.words[a])), int(ends[b - 1]), name) for a, b, name, _ in example.spans
        ]
        for e in p.entities:
            if (e.start, e.end, e.label) not in gold:
                overlapped = [
                    name if (a, b) == (e.start, e.end) else f"{name} [{text[a:b]}]"
                    for a, b, name in gold
                    if a < e.end and b > e.start
                ]
                mistakes.append((e.score, example.line, e.label, ", ".join(overlapped) or "no entity"))
        corpus = corpus_of_text(predictor, text)
        (out,) = run_model(predictor.runner, corpus)
        outside = probabilities(out.word_logits, predictor.config.temperature_task_b)[:, 0]
        for (a, b, name), (first, last, *_) in zip(gold, example.spans):
            if not any(e.start < b and e.end > a for e in p.entities):
                mistakes.append((outside[first:last].mean(), example.line, "no entity", name))
    return sorted(mistakes, key=lambda mistake: -mistake[0])


def corpus_of_text(predictor, text):
    config = predictor.config
    return encode([example_from_text(text)], predictor.tokenizer, LABELS, config.max_length, config.stride)


def test_mistakes_equal_those_of_single_predictions_in_order_of_confidence(predictor, write_rows):
    path = write_rows("rows.jsonl", random_rows(25, seed=2))
    ours, slow = all_mistakes(predictor, path), slow_mistakes(predictor, path)
    assert len(ours) == len(slow) > 60
    ours_by_row = sorted((m.line, m.predicted, m.gold, m.probability) for m in ours)
    slow_by_row = sorted((*mistake[1:], mistake[0]) for mistake in slow)
    assert [m[:3] for m in ours_by_row] == [m[:3] for m in slow_by_row]
    assert [m[3] for m in ours_by_row] == pytest.approx([m[3] for m in slow_by_row], abs=1e-4)
    assert all(a.probability >= b.probability for a, b in pairwise(ours))
    assert {m.task for m in ours} == {"task_a", "task_b"}
    assert any(m.predicted == "no entity" for m in ours) and any("GPE" in m.gold for m in ours)
    assert all_mistakes(predictor, path, 7) == ours[:7]


def mistakes_with_one_entity(path, predictor, row, start, end, kind):
    """The mistakes of predictions whose only entity is the words [start, end) of one row."""
    corpus = corpus_of(path, predictor)
    tags = np.zeros(corpus.word_rows[-1], np.int32)
    first = corpus.word_rows[row]
    tags[first + start : first + end] = 2 + 2 * kind
    tags[first + start] -= 1
    m = match_entities(corpus, LABELS, tags)
    scores, outside = np.full((2, len(m.starts)), 0.9), np.full(corpus.spans.shape[1], 0.5)
    predictions = CorpusPredictions(None, None, tags, m, scores, outside, None)
    return most_confident_mistakes([path], corpus, LABELS, predictions)


def test_a_mistake_is_shown_in_brackets_with_its_context(predictor, write_rows):
    long, entity = "vote " * 30, "anna " * 30
    spans = [{"start": len(long), "end": len(long) + len(entity) - 1, "label": "PER"}]
    rows = [
        {"text": f"{long}{entity}\nin \x1b[2Jparis", "entities": spans},
        {"tokens": ["anna", "won", "in", "paris"], "tags": ["B-PER", "O", "O", "O"]},
    ]
    path = write_rows("rows.jsonl", rows)
    first, second = mistakes_with_one_entity(path, predictor, 0, 30, 59, 0)
    assert (first.predicted, first.gold) == ("LOC", f"PER [{entity[:80]}…]")
    assert first.sentence == f"…{long[-40:]}[{entity[:80]}…] anna \nin \x1b[2Jparis"
    assert str(first).splitlines()[1].endswith("] anna \\nin \\x1b[2Jparis")
    assert (second.predicted, second.gold, second.sentence) == ("no entity", "PER", "[anna] won in paris")
    assert (second.file, second.line, second.probability) == (path, 2, 0.5)
    (missed,) = mistakes_with_one_entity(path, predictor, 1, 0, 1, 1)
    assert missed.sentence == f"…{long[-40:]}[{entity[:80]}…] \nin \x1b[2Jparis"


def test_entities_that_overlap_are_one_mistake_and_others_are_two(predictor, write_rows):
    tags = ["O", "B-PER", "I-PER", "I-PER", "O"]
    path = write_rows("rows.jsonl", [{"tokens": ["in", "anna", "won", "in", "paris"], "tags": tags}])

    def mistakes(start, end):
        return [(m.predicted, m.gold) for m in mistakes_with_one_entity(path, predictor, 0, start, end, 1)]

    for start, end in [(0, 2), (1, 2), (2, 3), (3, 5), (0, 5)]:
        assert mistakes(start, end) == [("PER", "PER [anna won in]")]
    for start, end in [(0, 1), (4, 5)]:
        assert mistakes(start, end) == [("PER", "no entity"), ("no entity", "PER")]
    assert mistakes(1, 4) == []


@pytest.mark.parametrize("change", ["short", "moved"])
def test_a_file_that_has_changed_is_an_error(predictor, write_rows, change):
    rows = random_rows(12)
    path = write_rows("rows.jsonl", rows)
    corpus = corpus_of(path, predictor)
    predictions = predict_with_confidence(predictor, corpus)
    with open(path) as file:
        lines = file.read().splitlines()
    with open(path, "w") as file:
        file.write("\n".join(lines[:1] if change == "short" else ["", *lines]) + "\n")
    with pytest.raises(InputError, match="changed while it was read"):
        most_confident_mistakes([path], corpus, LABELS, predictions)


def test_without_mistakes_no_file_is_read_again(predictor, tmp_path, write_rows):
    path = write_rows("rows.jsonl", [{"text": "anna won"}])
    corpus = corpus_of(path, predictor)
    assert (
        most_confident_mistakes(["nowhere.jsonl"], corpus, LABELS, predict_with_confidence(predictor, corpus))
        == []
    )


def test_json_keeps_the_names_said_and_right():
    mistake = Mistake(0.5, "a.jsonl", 3, "task_a", "sports", "politics", "Ada won")
    names = ["probability", "file", "line", "task", "said", "right", "sentence"]
    assert mistake.to_dict() == dict(zip(names, mistake))
