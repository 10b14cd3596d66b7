import json

import numpy as np
import pytest
from seqeval.metrics import accuracy_score, classification_report
from sklearn.metrics import f1_score, precision_recall_fscore_support

from multitask.data.corpus import encode
from multitask.data.examples import Example
from multitask.data.labels import LabelSpace, spans_to_tags, tags_to_spans
from multitask.evaluation.metrics import score, scores_table

LABELS = LabelSpace(("x", "y", "z"), ("LOC", "ORG", "PER"), "BIO")


def random_corpus(tokenizer, seed, rows=40, missing=0.0):
    """A corpus with random annotation, its examples, and random predictions that are valid in BIO."""
    random = np.random.default_rng(seed)
    examples, tags = [], []
    for _ in range(rows):
        length = random.integers(1, 12)
        gold, predicted = (random.choice(LABELS.tags, length, p=[0.4, *[0.1] * 6]) for _ in range(2))
        predicted = np.where(random.random(length) < 0.6, gold, predicted)
        spans = tags_to_spans(list(gold))[0] if random.random() >= missing else None
        label = str(random.choice(LABELS.classes)) if random.random() >= missing else None
        examples.append(Example(["a"] * length, spans, label))
        tags += spans_to_tags(tags_to_spans(list(predicted))[0], length, "BIO")
    corpus = encode(examples, tokenizer, LABELS, 64, 8)
    return corpus, examples, random.integers(0, 3, rows), np.array([LABELS.tags.index(tag) for tag in tags])


def by_row(corpus, tags):
    return [list(tags[a:b]) for a, b in zip(corpus.word_rows, corpus.word_rows[1:])]


@pytest.mark.parametrize("seed", range(100))
def test_entity_scores_equal_those_of_seqeval(tokenizer, seed):
    corpus, examples, classes, tags = random_corpus(tokenizer, seed)
    gold = [spans_to_tags(e.spans, len(e.words), "BIO") for e in examples]
    predicted = [[LABELS.tags[i] for i in row] for row in by_row(corpus, tags)]
    report = classification_report(gold, predicted, output_dict=True, zero_division=0)
    scores = score(corpus, LABELS, classes, tags).task_b
    for name, ours in {"micro avg": scores.micro, **scores.per_label}.items():
        theirs = report[name]
        assert (ours.precision, ours.recall, ours.f1) == pytest.approx(
            (theirs["precision"], theirs["recall"], theirs["f1-score"])
        )
        assert ours.gold == theirs["support"]
    assert scores.macro_f1 == pytest.approx(report["macro avg"]["f1-score"])
    assert scores.word_accuracy == pytest.approx(accuracy_score(gold, predicted))


@pytest.mark.parametrize("seed", range(20))
def test_class_scores_equal_those_of_scikit_learn(tokenizer, seed):
    corpus, examples, classes, tags = random_corpus(tokenizer, seed, rows=8)
    gold = [e.label for e in examples]
    predicted = [LABELS.classes[i] for i in classes]
    scores = score(corpus, LABELS, classes, tags).task_a
    assert scores.macro_f1 == pytest.approx(f1_score(gold, predicted, average="macro"))
    assert scores.accuracy == np.mean(np.array(gold) == predicted)
    names = sorted(set(gold) | set(predicted))
    theirs = precision_recall_fscore_support(gold, predicted, labels=names, zero_division=0)
    assert sorted(scores.per_label) == names
    for name, *figures in zip(names, *theirs):
        ours = scores.per_label[name]
        assert (ours.precision, ours.recall, ours.f1, ours.gold) == pytest.approx(tuple(figures))


@pytest.mark.parametrize("seed", range(20))
def test_a_row_that_is_not_annotated_for_a_task_does_not_count_for_it(tokenizer, seed):
    corpus, examples, classes, tags = random_corpus(tokenizer, seed, missing=0.4)
    scores = score(corpus, LABELS, classes, tags)
    rows = by_row(corpus, tags)

    def alone(chosen):
        """The scores of these rows only."""
        part = encode([examples[i] for i in chosen], tokenizer, LABELS, 64, 8)
        return score(part, LABELS, classes[chosen], np.array([t for i in chosen for t in rows[i]]))

    with_class = [i for i, e in enumerate(examples) if e.label is not None]
    with_spans = [i for i, e in enumerate(examples) if e.spans is not None]
    assert scores.task_a == alone(with_class).task_a
    assert scores.task_b == alone(with_spans).task_b
    both = sorted(set(with_class) & set(with_spans))
    correct = [
        LABELS.classes[classes[i]] == examples[i].label
        and tags_to_spans([LABELS.tags[t] for t in rows[i]])[0] == examples[i].spans
        for i in both
    ]
    assert scores.exact_match == pytest.approx(np.mean(correct))


def test_words_without_a_prediction_count_as_missed(tokenizer):
    example = Example(["a"] * 4, tags_to_spans(["B-LOC", "O", "B-PER", "I-PER"])[0])
    corpus = encode([example], tokenizer, LABELS, 64, 8)
    whole = np.array([1, 0, 5, 6])
    cut = np.array([1, 0, 5, -1])
    assert score(corpus, LABELS, None, whole).task_b.micro.f1 == 1
    scores = score(corpus, LABELS, None, cut)
    assert (scores.task_b.micro.correct, scores.task_b.micro.predicted, scores.task_b.micro.gold) == (1, 2, 2)
    assert scores.task_b.word_accuracy == 0.75
    assert scores.exact_match == 0


def test_labels_that_the_model_does_not_know_are_scored_as_wrong(tokenizer):
    example = Example(["a", "b"], tags_to_spans(["B-GPE", "B-LOC"])[0], "w")
    corpus = encode([example], tokenizer, LABELS, 64, 8)
    scores = score(corpus, LABELS, np.array([0]), np.array([1, 1]))
    assert (scores.task_a.accuracy, scores.exact_match) == (0, 0)
    assert (scores.task_b.micro.correct, scores.task_b.micro.gold) == (1, 2)
    assert scores.task_b.word_accuracy == 0.5
    assert scores.task_b.per_label["(not in train)"].gold == 1


def test_adjacent_entities_joined_by_io_tags_are_both_missed(tokenizer):
    labels = LabelSpace((), ("PER",), "IO")
    example = Example(["a", "b"], tags_to_spans(["B-PER", "B-PER"])[0])
    corpus = encode([example], tokenizer, labels, 64, 8)
    scores = score(corpus, labels, None, np.array([1, 1])).task_b
    assert (scores.word_accuracy, scores.micro.f1, scores.micro.predicted) == (1, 0, 1)


def test_a_task_without_annotation_has_no_scores(tokenizer):
    corpus = encode([Example(["a"], None, "x")], tokenizer, LABELS, 64, 8)
    scores = score(corpus, LABELS, np.array([0]), np.array([0]))
    assert scores.task_b is None
    assert scores.exact_match == 1
    nothing = encode([Example(["a"])], tokenizer, LABELS, 64, 8)
    assert set(score(nothing, LABELS, np.array([0]), np.array([0])).headline().values()) == {None}


def test_table_and_json_contain_the_scores(tokenizer):
    corpus, _, classes, tags = random_corpus(tokenizer, 0)
    scores = score(corpus, LABELS, classes, tags)
    text, row = scores_table(scores), json.loads(json.dumps(scores.to_dict()))
    for value in (scores.task_a.accuracy, scores.task_b.micro.f1, scores.task_b.per_label["ORG"].recall):
        assert f"{value:.4f}" in text
    assert row["entity_f1"] == row["task_b"]["f1"] == scores.task_b.micro.f1
    assert row["task_a"]["per_class"]["x"]["recall"] == scores.task_a.per_label["x"].recall
