import numpy as np
import pytest
import torch

from model import MultiTaskTransformer
from multitask.common import distributed
from multitask.data.corpus import encode
from multitask.data.examples import Example
from multitask.data.labels import LabelSpace, tags_to_spans
from multitask.evaluation import calibration
from multitask.evaluation.calibration import (
    BOUNDS,
    bin_confidences,
    fit_temperature,
    fit_temperatures,
)
from multitask.inference.runner import run_model, runner_of

LABELS = LabelSpace(("x", "y", "z"), ("LOC", "PER"), "BIO")


def loss(logits, gold, temperature):
    """Mean negative log-likelihood, item by item."""
    return np.mean(
        [
            np.log(np.exp((row - row.max()) / temperature).sum()) - (row[g] - row.max()) / temperature
            for row, g in zip(logits.astype(np.float64), gold)
        ]
    )


def overconfident(seed, n=400, k=5, times=2.5):
    """Logits times a factor, and ids drawn from the probabilities of the logits without it."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(n, k)) * 2
    gold = (logits + random.gumbel(size=logits.shape)).argmax(1)
    return (logits * times).astype(np.float32), gold


@pytest.mark.parametrize("seed", range(5))
def test_the_temperature_minimizes_the_loss(seed):
    logits, gold = overconfident(seed, times=[0.3, 0.9, 2.5, 6, 12][seed])
    best = fit_temperature(logits, gold)
    grid = best * np.exp(np.linspace(-2e-3, 2e-3, 41))
    losses = [loss(logits, gold, t) for t in grid]
    assert grid[np.argmin(losses)] == pytest.approx(best, rel=1e-4)
    for other in np.geomspace(*BOUNDS, 12):
        assert loss(logits, gold, other) >= min(losses)


def test_the_temperature_undoes_a_factor_on_the_logits():
    logits, gold = overconfident(0, n=20000)
    assert fit_temperature(logits, gold) == pytest.approx(2.5, rel=0.05)
    assert fit_temperature(logits * 2, gold) == pytest.approx(2 * fit_temperature(logits, gold), rel=1e-4)


def test_blocks_and_unknown_ids_do_not_change_the_temperature(monkeypatch):
    logits, gold = overconfident(1)
    best = fit_temperature(logits, gold)
    logits_with_unknown = np.concatenate([logits, np.full((3, 5), 50, np.float32)])
    odd = np.concatenate([gold, [-100, 5, 6]])
    monkeypatch.setattr(calibration, "BLOCK_SIZE", 7)
    assert fit_temperature(logits_with_unknown, odd) == pytest.approx(best, rel=1e-6)


def test_without_a_minimum_the_temperature_is_a_bound_or_one():
    logits = np.float32([[9, 0], [0, 3]])
    assert fit_temperature(logits, np.array([0, 1])) == BOUNDS[0]
    assert fit_temperature(logits, np.array([1, 0])) == BOUNDS[1]
    assert fit_temperature(logits, np.array([-100, -100])) == 1
    assert fit_temperature(np.ones((2, 3), np.float32), np.array([0, 2])) == 1
    assert fit_temperature(np.zeros((0, 3), np.float32), np.zeros(0, int)) == 1


def test_huge_logits_do_not_overflow():
    logits = np.float32([[1e4, 0, 0], [0, 1e30, 0], [0, 1e4, 0]])
    with np.errstate(all="raise", under="ignore"):
        assert fit_temperature(logits, np.array([0, 1, 0])) == BOUNDS[1]


def test_the_calibration_error_follows_its_definition():
    random = np.random.default_rng(0)
    confidence = np.concatenate([random.random(500), [0, 1, 1 / 15, 2 / 15]])
    correct = random.random(504) < confidence**2
    error, edges = 0.0, [m / 15 for m in range(16)]
    for m, (low, high) in enumerate(zip(edges, edges[1:])):
        inside = [i for i, c in enumerate(confidence) if low < c <= high or (m == 0 and c == 0)]
        if inside:
            error += len(inside) / 504 * abs(correct[inside].mean() - confidence[inside].mean())
            bins = bin_confidences(confidence, correct)
            assert bins.count[m] == len(inside)
            assert bins.confidence[m] == pytest.approx(confidence[inside].mean())
            assert bins.accuracy[m] == pytest.approx(correct[inside].mean())
    assert bin_confidences(confidence, correct).error == pytest.approx(error)
    halves = bin_confidences(confidence[:99], correct[:99]).plus(
        bin_confidences(confidence[99:], correct[99:])
    )
    assert halves.error == pytest.approx(error)
    assert bin_confidences(np.zeros(0), np.zeros(0, bool)).error == 0


@pytest.fixture(scope="module")
def model(tiny):
    torch.manual_seed(4)
    sizes = {"num_classes_task_a": 3, "num_labels_task_b": 5, "max_length": 24, "stride": 6}
    model = MultiTaskTransformer.from_pretrained(tiny, **sizes).eval()
    torch.nn.init.normal_(model.classifier.weight)
    torch.nn.init.normal_(model.sentence_classifier.weight)
    return model


def annotated(tokenizer, rows=40, labels=LABELS):
    random = np.random.default_rng(1)
    examples = []
    for row in range(rows):
        words = list(random.choice(["anna", "won", "in", "paris", "vote"], random.integers(1, 40)))
        tags = random.choice(["O", "B-LOC", "B-PER", "B-GPE"], len(words))
        spans, _ = tags_to_spans(list(tags))
        label = str(random.choice(["x", "y", "z", "w"]))
        examples.append(Example(words, spans if row % 3 else None, label if row % 4 else None))
    return encode(examples, tokenizer, labels, 24, 6)


def labelled(model, corpus):
    """Logits and ids of the items whose label the model knows."""
    (out,) = run_model(runner_of(model), corpus)
    a, b = (
        (logits[(ids >= 0) & (ids < logits.shape[1])], ids[(ids >= 0) & (ids < logits.shape[1])])
        for logits, ids in ((out.sentence_logits, corpus.row_classes), (out.word_logits, corpus.word_tags))
    )
    return a, b


def test_temperatures_are_fitted_on_annotated_rows_and_words(model, tokenizer):
    corpus = annotated(tokenizer)
    a, b = labelled(model, corpus)
    assert 0 < len(a[1]) < len(corpus) and 0 < len(b[1]) < corpus.word_rows[-1]
    assert fit_temperatures(model, corpus, LABELS) == pytest.approx(
        (fit_temperature(*a), fit_temperature(*b))
    )


def test_a_task_without_mistakes_or_annotation_has_temperature_one(model, tokenizer):
    corpus = annotated(tokenizer)
    a, b = fit_temperatures(model, corpus, LABELS)
    assert 1 not in (a, b)
    assert fit_temperatures(model, corpus, LabelSpace(LABELS.classes, ())) == pytest.approx((a, 1))
    classes_only = encode([Example(["anna"], None, name) for name in "xyz"], tokenizer, LABELS, 24, 6)
    assert fit_temperatures(model, classes_only, LABELS)[1] == 1
    (out,) = run_model(runner_of(model), classes_only)
    predicted = LABELS.classes[int(out.sentence_logits[0].argmax())]
    ignored = Example(["anna"]), Example(["anna"], None, "w")  # no class, and a class that is not in train
    all_correct = encode([Example(["anna"], None, predicted), *ignored], tokenizer, LABELS, 24, 6)
    assert fit_temperatures(model, all_correct, LABELS) == (1, 1)


def test_a_large_corpus_is_sampled_evenly(model, tokenizer, monkeypatch):
    corpus = annotated(tokenizer)
    monkeypatch.setattr(calibration, "SAMPLE_WORDS", 200)
    monkeypatch.setattr(calibration, "SAMPLE_PARTS", 4)
    rows = [list(range(*part)) for part in calibration.sample_rows(corpus)]
    for part, taken in enumerate(rows):
        assert taken[0] == 10 * part
        assert 1 <= len(taken) < 10
        assert corpus.word_rows[taken[-1] + 1] - corpus.word_rows[taken[0]] <= 50
    sample = [np.concatenate(rows)]
    (out,) = run_model(runner_of(model), corpus)
    ids = np.where(np.isin(np.arange(len(corpus)), sample), corpus.row_classes, -100)
    assert fit_temperatures(model, corpus, LABELS)[0] == pytest.approx(
        fit_temperature(out.sentence_logits, ids)
    )


def test_a_sample_contains_no_row_twice(tokenizer, monkeypatch):
    lengths = [*[1] * 20, *[30] * 4, 90, *[30] * 6, 1, 1]
    corpus = encode([Example(["anna"] * n) for n in lengths], tokenizer, LABELS, 24, 6)
    monkeypatch.setattr(calibration, "SAMPLE_WORDS", 200)
    monkeypatch.setattr(calibration, "SAMPLE_PARTS", 4)
    rows = [row for part in calibration.sample_rows(corpus) for row in range(*part)]
    assert rows == sorted(set(rows)) and {0, 8, 16, 24} <= set(rows)


def test_processes_share_the_rows_and_get_the_same_temperatures(model, tokenizer, monkeypatch):
    corpus = annotated(tokenizer)
    alone, parts = fit_temperatures(model, corpus, LABELS), ([], [])
    for rank in range(2):
        monkeypatch.setattr(
            distributed, "share_of_rows", lambda size, r=rank: (size * r // 2, size * (r + 1) // 2)
        )
        monkeypatch.setattr(distributed, "concatenate", lambda part, r=rank: parts[r].append(part) or part)
        fit_temperatures(model, corpus, LABELS)
    both = [np.concatenate(pair) for pair in zip(*parts)]  # logits and ids of task A, then of task B
    assert [len(ids) for ids in both[1::2]] == [len(ids) for _, ids in labelled(model, corpus)]
    monkeypatch.setattr(distributed, "concatenate", lambda part: both.pop(0))
    assert fit_temperatures(model, corpus, LABELS) == pytest.approx(alone)
