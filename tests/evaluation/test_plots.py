import re
import warnings

import matplotlib.font_manager
import numpy as np
import pytest
from matplotlib.figure import Figure

from multitask.evaluation.calibration import bin_confidences
from multitask.evaluation.plots import (
    abbreviate,
    confusion,
    draw_confusion,
    draw_curves,
    draw_reliability,
    draw_risk,
    reduced,
)
from multitask.evaluation.selective import Answers, Level, area_under_risk, risk_coverage


@pytest.fixture
def drawn(monkeypatch):
    """The figures behind the image files. A warning of matplotlib is an error."""
    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: figures.append(self) or save(self, *a, **k))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        # not those about garbage of earlier tests that is collected meanwhile
        warnings.simplefilter("default", pytest.PytestWarning)
        yield figures


def texts(axes):
    return [label.get_text() for label in axes.get_xticklabels()]


def test_a_confusion_matrix_counts_predictions_by_gold_id():
    random = np.random.default_rng(0)
    gold, predicted = random.integers(0, 4, (2, 200))
    counts = confusion(gold.astype(np.int32), predicted, 4)
    for i in range(4):
        for j in range(4):
            assert counts[i, j] == sum(1 for g, p in zip(gold, predicted) if (g, p) == (i, j))


def test_many_names_are_reduced_to_the_most_confused_without_losing_counts():
    random = np.random.default_rng(0)
    counts = np.diag(random.integers(1, 9, 60))
    for name in (3, 30, 57):
        counts[name, (name + 1) % 60] = 100
    counts[10, 10] = 1000  # often, but right
    counts = np.pad(counts, (0, 2))  # two names that never occur
    small, names = reduced(counts, [str(i) for i in range(62)], limit=7)
    assert names == ["3", "4", "30", "31", "57", "58", "(54 others)"]
    assert small.sum() == counts.sum()
    assert small[0].tolist() == [counts[3, 3], 100, 0, 0, 0, 0, 0]
    assert small[-1, -1] == sum(counts[i, i] for i in range(60) if str(i) not in names)
    same, all_names = reduced(counts, [str(i) for i in range(62)], limit=60)
    assert all_names == [str(i) for i in range(60)] and (same == counts[:60, :60]).all()


def test_names_of_any_kind_are_drawn_without_a_warning(drawn):
    names = ["体育", "$x_{$", "n" * 300, "_under", "मौसम", "a\nb\x1b", "العربية", "plain"]
    png = draw_confusion("Title", np.eye(8, dtype=int) * 12345, names)
    assert png.startswith(b"\x89PNG")
    (axes,) = drawn[0].axes
    labels = texts(axes)
    assert labels[1:4] == ["$x_{$", "n" * 23 + "…", "_under"] and labels[5] == "a\\nb\\x1b"
    assert labels[6:] == ["العربية", "plain"]
    assert labels[0] in ("体育", r"\u4f53\u80b2")  # where a font has them, and where none has
    assert {text.get_text() for text in axes.texts} == {"12k"}


def test_characters_missing_from_all_fonts_are_escaped(drawn, monkeypatch):
    fonts = [f for f in matplotlib.font_manager.fontManager.ttflist if f.name == "DejaVu Sans"]
    monkeypatch.setattr(matplotlib.font_manager.fontManager, "ttflist", fonts)
    draw_confusion("Title", np.eye(3, dtype=int), ["体育", "政a", "ok"])
    assert texts(drawn[0].axes[0]) == [r"\u4f53\u80b2", r"\u653fa", "ok"]


@pytest.mark.parametrize("size", [1, 7, 150])
def test_a_matrix_of_any_size_is_readable(drawn, size):
    random = np.random.default_rng(0)
    counts = random.integers(1, 50, (size, size)) * (random.random((size, size)) < 0.1) + np.eye(
        size, dtype=int
    )
    draw_confusion("Title", counts, [f"name {i}" for i in range(size)])
    figure = drawn[0]
    axes = figure.axes[0]
    assert len(texts(axes)) == min(size, 25)
    (x0, y0), (x1, y1) = axes.transData.transform([(0, 0), (1, 1)])
    cell = min(abs(x1 - x0), abs(y1 - y0)) * 72 / figure.dpi
    assert cell > 2 * axes.texts[0].get_fontsize()  # room for four digits
    assert sum(int(text.get_text().rstrip("k")) for text in axes.texts if "k" not in text.get_text()) > 0


def test_a_reliability_diagram_shows_bins_and_errors(drawn):
    random = np.random.default_rng(0)
    confidence = random.random(300)
    before, after = (
        bin_confidences(confidence, random.random(300) < 0.5),
        bin_confidences(confidence, confidence > 0.5),
    )
    pairs = {"classes": [before, after], "tags": [before]}
    draw_reliability(pairs)
    first, second = drawn[0].axes
    labels = [text.get_text() for text in first.get_legend().get_texts()]
    assert labels == [f"temperature 1: ECE {before.error:.4f}", f"calibrated: ECE {after.error:.4f}"]
    assert [re.sub("ECE.*", "", t.get_text()) for t in second.get_legend().get_texts()] == ["temperature 1: "]
    np.testing.assert_allclose(first.lines[2].get_xydata(), np.stack([after.confidence, after.accuracy], 1))
    assert first.get_title() == "classes (300)"


def test_without_predictions_the_diagram_is_empty(drawn):
    nothing = bin_confidences(np.zeros(0), np.zeros(0, bool))
    draw_reliability({"tags": [nothing, nothing]})
    assert drawn[0].axes[0].get_title() == "tags (0)"


def test_a_risk_diagram_shows_the_curve_and_what_the_thresholds_do(drawn):
    random = np.random.default_rng(0)
    confidence = random.random(400)
    found = Answers(confidence, random.random(400) < confidence)
    levels = [
        Level(0.9, 0.7, 0.31, 0.88),
        Level(0.95, 0.99, 0.0, None),  # nothing here is confident enough
        Level(0.99, None, None, None),  # not reached on dev
    ]
    draw_risk({"classes": (found, levels), "found entities": (found, [])})
    first, second = drawn[0].axes
    coverage, risk = risk_coverage(*found)
    np.testing.assert_array_equal(first.lines[0].get_xydata(), np.stack([coverage, risk], 1))
    points = [points.get_offsets()[0] for points in first.collections]
    np.testing.assert_allclose(points, [(0.31, 1 - 0.88)])
    texts = [text.get_text() for text in first.get_legend().get_texts()]
    assert texts == [f"area {area_under_risk(*found):.4f}", "90% right wanted"]
    assert first.get_title() == "classes (400)" and second.get_title() == "found entities (400)"
    assert not second.collections and first.get_ylim()[0] == second.get_ylim()[0] == 0


@pytest.mark.parametrize(
    ("n", "text"), [(9999, "9999"), (10_000, "10k"), (9_999_999, "9999k"), (10**7, "10M")]
)
def test_large_counts_are_abbreviated(n, text):
    assert abbreviate(n) == text


def test_curves_show_every_epoch_and_the_best(drawn):
    random = np.random.default_rng(0)
    values = [*random.random(60).tolist(), None]
    svg = draw_curves("score", {"a": values, "b": values[::-1]}, 7, "svg")
    assert svg.startswith(b"<?xml") and svg == draw_curves(
        "score", {"a": values, "b": values[::-1]}, 7, "svg"
    )
    first, second, best = drawn[0].axes[0].lines
    np.testing.assert_array_equal(first.get_xdata(), range(1, 62))
    np.testing.assert_array_equal(first.get_ydata(), np.array(values, float))
    np.testing.assert_array_equal(second.get_ydata(), np.array(values[::-1], float))
    assert list(best.get_xdata()) == [7, 7]
    assert first.get_linestyle() != second.get_linestyle()
    draw_curves("loss", {"a": [-1.0]}, None)
    assert drawn[-1].axes[0].get_ylim()[0] < -1 and len(drawn[-1].axes[0].lines) == 1
