import numpy as np
import pytest
from test_metrics import LABELS, random_corpus

from multitask.data.corpus import encode
from multitask.data.labels import LabelSpace, Span, spans_to_tags
from multitask.data.rows import Example
from multitask.evaluation import intervals as resampling
from multitask.evaluation.intervals import (
    METRICS,
    bootstrap_difference,
    bootstrap_intervals,
    compare_means,
    count_by_row,
    scores_of,
)
from multitask.evaluation.metrics import score


def resampled(tokenizer, corpus, examples, classes, tags, drawn, labels=LABELS):
    """The scores of a corpus that is made of the rows that were drawn, in METRICS' order."""
    rows = [tags[a:b] for a, b in zip(corpus.word_rows, corpus.word_rows[1:])]
    again = encode([examples[i] for i in drawn], tokenizer, labels, 64, 8)
    scores = score(again, labels, classes[drawn], np.concatenate([rows[i] for i in drawn]))
    return [scores.headline()[name] for name in METRICS]


def draws(rows, times, seed=0):
    return np.random.default_rng(seed).integers(0, rows, (times, rows))


def known(scores):
    return np.array([[np.nan if value is None else value for value in row] for row in scores], float)


@pytest.mark.parametrize(("seed", "rows", "missing"), [(0, 40, 0), (1, 30, 0.4), (2, 3, 0.5), (3, 1, 0)])
def test_scores_by_row_counts_are_those_of_the_resampled_corpus(tokenizer, seed, rows, missing):
    corpus, examples, classes, tags = random_corpus(tokenizer, seed, rows, missing)
    rows_added = count_by_row(corpus, LABELS, classes, tags)
    drawn = np.concatenate([np.arange(rows)[None], draws(rows, 25, seed)])
    times = np.stack([np.bincount(row, minlength=rows) for row in drawn])
    slow = known([resampled(tokenizer, corpus, examples, classes, tags, row) for row in drawn])
    np.testing.assert_allclose(scores_of(rows_added, times), slow, atol=1e-12)


def test_labels_that_the_model_can_not_say_are_scored_as_in_evaluation(tokenizer):
    corpus, examples, classes, tags = random_corpus(tokenizer, 0)
    few = LabelSpace(("x",), ("LOC",), "BIO")
    again = encode(examples, tokenizer, few, 64, 8)
    said = np.where(tags <= 2, tags, 0)
    scores = score(again, few, np.zeros(40, int), said)
    point = scores_of(count_by_row(again, few, np.zeros(40, int), said), np.ones((1, 40), int))[0]
    np.testing.assert_allclose(point, known([[scores.headline()[name] for name in METRICS]])[0], atol=1e-12)


@pytest.mark.parametrize("without", ["classes", "tags"])
def test_a_task_that_is_not_scored_has_no_interval(tokenizer, without):
    corpus, _, classes, tags = random_corpus(tokenizer, 0)
    given = {"classes": classes, "tags": tags, without: None}
    scores = score(corpus, LABELS, **given)
    found = bootstrap_intervals(count_by_row(corpus, LABELS, **given))
    assert {name for name in METRICS if found[name]} == {
        name for name in METRICS if scores.headline()[name] is not None
    }
    for name, (low, high) in ((name, found[name]) for name in METRICS if found[name]):
        assert low < scores.headline()[name] < high


def test_intervals_are_those_of_rows_drawn_one_by_one(tokenizer, monkeypatch):
    corpus, examples, classes, tags = random_corpus(tokenizer, 5, 40, 0.2)
    rows = count_by_row(corpus, LABELS, classes, tags)
    times = np.stack([np.bincount(row, minlength=40) for row in draws(40, 4000)])
    slow = np.nanpercentile(scores_of(rows, times), [2.5, 97.5], axis=0)
    monkeypatch.setattr(resampling, "RESAMPLES", 4000)
    fast = bootstrap_intervals(rows)
    np.testing.assert_allclose(np.array([fast[name] for name in METRICS]).T, slow, atol=0.02)
    assert bootstrap_intervals(rows) == fast != bootstrap_intervals(rows, seed=1)
    monkeypatch.setattr(resampling, "_BLOCK", 20_000)
    blocks = bootstrap_intervals(rows)
    np.testing.assert_allclose(np.array([blocks[name] for name in METRICS]).T, slow, atol=0.02)


def test_rows_that_add_the_same_are_drawn_together_but_all_are_drawn(tokenizer):
    corpus, _, classes, tags = random_corpus(tokenizer, 6, 40, 0.3)
    rows = count_by_row(corpus, LABELS, classes, tags)
    columns, counts = resampling._kinds(rows)
    assert len(counts) < 40
    there = sorted(zip(*(column.tolist() for column in rows)))
    grouped = sorted(kind for *kind, n in zip(*columns, counts) for kind in [tuple(map(int, kind))] * n)
    assert grouped == there
    assert all(times.sum(1).tolist() == [40] * len(times) for times in resampling._resamples(counts, 0))


def two_models(tokenizer, better):
    """Predictions for the same rows by two models, of which one has another label space and is better at
    classes by a share of the rows."""
    corpus, examples, _, tags = random_corpus(tokenizer, 7, 60)
    random = np.random.default_rng(0)
    gold = corpus.row_classes
    first = np.where(random.random(60) < 0.5 + better, gold, (gold + 1) % 3)
    other = LabelSpace(("y", "x"), ("PER", "LOC"), "IO")
    second = encode(examples, tokenizer, other, 24, 4)
    classes = np.where(random.random(60) < 0.5, np.minimum(second.row_classes, 1), 0)
    said = []
    for i, example in enumerate(examples):
        spans = [span for span in example.spans if span.label != "ORG" and i % 2]
        said += [other.tags.index(tag) for tag in spans_to_tags(spans, len(example.words), "IO")]
    said = np.array(said)
    return examples, (corpus, LABELS, first, tags), (second, other, classes, said)


@pytest.mark.parametrize("better", [0.0, 0.4])
def test_two_models_are_compared_on_the_same_resamples(tokenizer, better):
    examples, *models = two_models(tokenizer, better)
    found = bootstrap_difference(*(count_by_row(*model) for model in models))
    slow = np.array(
        [
            [
                resampled(tokenizer, corpus, examples, classes, tags, row, labels)
                for corpus, labels, classes, tags in models
            ]
            for row in [np.arange(60), *draws(60, 300)]
        ]
    )
    for i, name in enumerate(METRICS):
        ours, (a, b) = found[name], slow[0, :, i]
        drawn = slow[1:, 0, i] - slow[1:, 1, i]
        assert ours[:3] == pytest.approx((a, b, a - b))
        np.testing.assert_allclose(ours[3:5], np.percentile(drawn, [2.5, 97.5]), atol=0.04)
        assert ours.p == pytest.approx(np.mean(np.abs(drawn - (a - b)) >= abs(a - b)), abs=0.06)
        assert ours.rows == 60
        assert (ours.p < 0.05) == (ours.verdict in ("the first is better", "the second is better"))
    assert (found["accuracy"].verdict == "the first is better") == (better > 0)
    swapped = bootstrap_difference(*(count_by_row(*model) for model in models[::-1]))
    assert swapped["accuracy"].difference == -found["accuracy"].difference
    assert (swapped["accuracy"].verdict == "the second is better") == (better > 0)


def test_equal_models_differ_in_nothing_and_few_rows_tell_nothing(tokenizer):
    corpus, _, classes, tags = random_corpus(tokenizer, 0)
    rows = count_by_row(corpus, LABELS, classes, tags)
    for found in bootstrap_difference(rows, rows).values():
        assert found[2:6] == (0, 0, 0, 1)
        assert found.verdict == "no difference that these rows show"
    one = encode([Example(["a"], [Span(0, 1, "LOC")], "x")], tokenizer, LABELS, 64, 8)
    right = count_by_row(one, LABELS, np.array([0]), np.array([1]))
    wrong = count_by_row(one, LABELS, np.array([1]), np.array([0]))
    assert bootstrap_intervals(right) == dict.fromkeys(METRICS, (1, 1))
    for found in bootstrap_difference(right, wrong).values():
        assert (found.difference, found.rows) == (1, 1)
        assert found.verdict.startswith("too few rows")


def test_a_score_that_one_model_lacks_is_not_compared(tokenizer):
    corpus, _, classes, tags = random_corpus(tokenizer, 0)
    found = bootstrap_difference(
        count_by_row(corpus, LABELS, classes, tags), count_by_row(corpus, LABELS, classes, None)
    )
    assert found["entity_f1"] is None
    assert found["accuracy"].difference == 0


def test_means_of_several_models_differ_by_the_mean_of_their_differences(tokenizer):
    corpus, _, classes, tags = random_corpus(tokenizer, 0)
    random = np.random.default_rng(0)
    worse = [np.where(random.random(len(classes)) < share, 0, classes) for share in (0.2, 0.5, 0.8)]
    a, b, c = (count_by_row(corpus, LABELS, each, tags) for each in worse)
    once, twice = bootstrap_difference(a, b), compare_means([a, a], [b, b])
    assert once == twice
    mixed = compare_means([a, b], [c, c])
    for name in METRICS:
        apart = [bootstrap_difference(each, c)[name] for each in (a, b)]
        assert mixed[name].difference == pytest.approx(np.mean([each.difference for each in apart]))
    assert mixed["accuracy"].low < mixed["accuracy"].difference < mixed["accuracy"].high
    width = mixed["accuracy"].high - mixed["accuracy"].low
    widths = [
        bootstrap_difference(each, c)["accuracy"].high - bootstrap_difference(each, c)["accuracy"].low
        for each in (a, b)
    ]
    assert width < max(widths) + 0.05  # the rows of both are drawn together, not one after the other
