import numpy as np
import pytest
from test_metrics import LABELS, random_corpus

from multitask.data.corpus import encode
from multitask.data.examples import Example
from multitask.data.labels import LabelSpace, Span, spans_to_tags
from multitask.evaluation import intervals
from multitask.evaluation.intervals import (
    METRICS,
    bootstrap_intervals,
    compare_means,
    count_by_row,
    scores_of,
)
from multitask.evaluation.metrics import score


def resampled(tokenizer, corpus, examples, classes, tags, drawn, labels=LABELS):
    """The metrics of a corpus of the drawn rows, in the order of METRICS."""
    rows = [tags[a:b] for a, b in zip(corpus.word_rows, corpus.word_rows[1:])]
    again = encode([examples[i] for i in drawn], tokenizer, labels, 64, 8)
    scores = score(again, labels, classes[drawn], np.concatenate([rows[i] for i in drawn]))
    return [scores.headline()[name] for name in METRICS]


def compare(first, second):
    return compare_means([first], [second])


def draws(rows, times, seed=0):
    return np.random.default_rng(seed).integers(0, rows, (times, rows))


def known(scores):
    return np.array([[np.nan if value is None else value for value in row] for row in scores], float)


@pytest.mark.parametrize(("seed", "rows", "missing"), [(0, 40, 0), (1, 30, 0.4), (2, 3, 0.5), (3, 1, 0)])
def test_row_counts_give_the_scores_of_the_resampled_corpus(tokenizer, seed, rows, missing):
    corpus, examples, classes, tags = random_corpus(tokenizer, seed, rows, missing)
    counts = count_by_row(corpus, LABELS, classes, tags)
    drawn = np.concatenate([np.arange(rows)[None], draws(rows, 25, seed)])
    times = np.stack([np.bincount(row, minlength=rows) for row in drawn])
    slow = known([resampled(tokenizer, corpus, examples, classes, tags, row) for row in drawn])
    np.testing.assert_allclose(scores_of(counts, times), slow, atol=1e-12)


def test_unknown_labels_are_scored_as_by_metrics(tokenizer):
    corpus, examples, classes, tags = random_corpus(tokenizer, 0)
    few = LabelSpace(("x",), ("LOC",), "BIO")
    again = encode(examples, tokenizer, few, 64, 8)
    predicted = np.where(tags <= 2, tags, 0)
    scores = score(again, few, np.zeros(40, int), predicted)
    point = scores_of(count_by_row(again, few, np.zeros(40, int), predicted), np.ones((1, 40), int))[0]
    np.testing.assert_allclose(point, known([[scores.headline()[name] for name in METRICS]])[0], atol=1e-12)


@pytest.mark.parametrize("without", ["classes", "tags"])
def test_a_task_that_is_not_scored_has_no_interval(tokenizer, without):
    corpus, _, classes, tags = random_corpus(tokenizer, 0)
    predictions = {"classes": classes, "tags": tags, without: None}
    scores = score(corpus, LABELS, **predictions)
    limits = bootstrap_intervals(count_by_row(corpus, LABELS, **predictions))
    assert {name for name in METRICS if limits[name]} == {
        name for name in METRICS if scores.headline()[name] is not None
    }
    for name, (low, high) in ((name, limits[name]) for name in METRICS if limits[name]):
        assert low < scores.headline()[name] < high


def test_intervals_equal_those_of_rows_drawn_one_by_one(tokenizer, monkeypatch):
    corpus, examples, classes, tags = random_corpus(tokenizer, 5, 40, 0.2)
    rows = count_by_row(corpus, LABELS, classes, tags)
    times = np.stack([np.bincount(row, minlength=40) for row in draws(40, 4000)])
    slow = np.nanpercentile(scores_of(rows, times), [2.5, 97.5], axis=0)
    monkeypatch.setattr(intervals, "RESAMPLES", 4000)
    fast = bootstrap_intervals(rows)
    np.testing.assert_allclose(np.array([fast[name] for name in METRICS]).T, slow, atol=0.02)
    assert bootstrap_intervals(rows) == fast != bootstrap_intervals(rows, seed=1)
    monkeypatch.setattr(intervals, "BLOCK_SIZE", 20_000)
    blocks = bootstrap_intervals(rows)
    np.testing.assert_allclose(np.array([blocks[name] for name in METRICS]).T, slow, atol=0.02)


def test_equal_rows_are_grouped_and_all_rows_are_drawn(tokenizer):
    corpus, _, classes, tags = random_corpus(tokenizer, 6, 40, 0.3)
    rows = count_by_row(corpus, LABELS, classes, tags)
    columns, counts = intervals.group_equal_rows(rows)
    assert len(counts) < 40
    expected = sorted(zip(*(column.tolist() for column in rows)))
    grouped = sorted(row for *group, n in zip(*columns, counts) for row in [tuple(map(int, group))] * n)
    assert grouped == expected
    assert all(times.sum(1).tolist() == [40] * len(times) for times in intervals.resample_counts(counts, 0))


def two_models(tokenizer, better):
    """Predictions of two models for the same rows. The first is better at classes by a share of the rows;
    the second has another label space."""
    corpus, examples, _, tags = random_corpus(tokenizer, 7, 60)
    random = np.random.default_rng(0)
    gold = corpus.row_classes
    first = np.where(random.random(60) < 0.5 + better, gold, (gold + 1) % 3)
    other = LabelSpace(("y", "x"), ("PER", "LOC"), "IO")
    second = encode(examples, tokenizer, other, 24, 4)
    classes = np.where(random.random(60) < 0.5, np.minimum(second.row_classes, 1), 0)
    predicted = []
    for i, example in enumerate(examples):
        spans = [span for span in example.spans if span.label != "ORG" and i % 2]
        predicted += [other.tags.index(tag) for tag in spans_to_tags(spans, len(example.words), "IO")]
    predicted = np.array(predicted)
    return examples, (corpus, LABELS, first, tags), (second, other, classes, predicted)


@pytest.mark.parametrize("better", [0.0, 0.4])
def test_two_models_are_compared_on_the_same_resamples(tokenizer, better):
    examples, *models = two_models(tokenizer, better)
    comparison = compare(*(count_by_row(*model) for model in models))
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
        result, (a, b) = comparison[name], slow[0, :, i]
        drawn = slow[1:, 0, i] - slow[1:, 1, i]
        assert result[:3] == pytest.approx((a, b, a - b))
        np.testing.assert_allclose(result[3:5], np.percentile(drawn, [2.5, 97.5]), atol=0.04)
        assert result.p == pytest.approx(np.mean(np.abs(drawn - (a - b)) >= abs(a - b)), abs=0.06)
        assert result.rows == 60
        assert (result.p < 0.05) == (result.verdict in ("the first is better", "the second is better"))
    assert (comparison["accuracy"].verdict == "the first is better") == (better > 0)
    swapped = compare(*(count_by_row(*model) for model in models[::-1]))
    assert swapped["accuracy"].difference == -comparison["accuracy"].difference
    assert (swapped["accuracy"].verdict == "the second is better") == (better > 0)


def test_equal_models_do_not_differ_and_few_rows_give_no_verdict(tokenizer):
    corpus, _, classes, tags = random_corpus(tokenizer, 0)
    rows = count_by_row(corpus, LABELS, classes, tags)
    for comparison in compare(rows, rows).values():
        assert comparison[2:6] == (0, 0, 0, 1)
        assert comparison.verdict == "no difference that these rows show"
    one = encode([Example(["a"], [Span(0, 1, "LOC")], "x")], tokenizer, LABELS, 64, 8)
    right = count_by_row(one, LABELS, np.array([0]), np.array([1]))
    wrong = count_by_row(one, LABELS, np.array([1]), np.array([0]))
    assert bootstrap_intervals(right) == dict.fromkeys(METRICS, (1, 1))
    for comparison in compare(right, wrong).values():
        assert (comparison.difference, comparison.rows) == (1, 1)
        assert comparison.verdict.startswith("too few rows")


def test_a_metric_that_one_model_lacks_is_not_compared(tokenizer):
    corpus, _, classes, tags = random_corpus(tokenizer, 0)
    comparison = compare(
        count_by_row(corpus, LABELS, classes, tags), count_by_row(corpus, LABELS, classes, None)
    )
    assert comparison["entity_f1"] is None
    assert comparison["accuracy"].difference == 0


def test_the_difference_of_means_is_the_mean_of_the_differences(tokenizer):
    corpus, _, classes, tags = random_corpus(tokenizer, 0)
    random = np.random.default_rng(0)
    worse = [np.where(random.random(len(classes)) < share, 0, classes) for share in (0.2, 0.5, 0.8)]
    a, b, c = (count_by_row(corpus, LABELS, ids, tags) for ids in worse)
    once, twice = compare(a, b), compare_means([a, a], [b, b])
    assert once == twice
    mixed = compare_means([a, b], [c, c])
    for name in METRICS:
        apart = [compare(rows, c)[name] for rows in (a, b)]
        assert mixed[name].difference == pytest.approx(
            np.mean([comparison.difference for comparison in apart])
        )
    assert mixed["accuracy"].low < mixed["accuracy"].difference < mixed["accuracy"].high
    width = mixed["accuracy"].high - mixed["accuracy"].low
    widths = [compare(rows, c)["accuracy"].high - compare(rows, c)["accuracy"].low for rows in (a, b)]
    assert width < max(widths) + 0.05  # the rows of both are drawn together, not one after the other
