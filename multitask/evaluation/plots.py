"""Plots: learning curves, confusion matrices and reliability diagrams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from multitask.common.shell import printable
from multitask.evaluation.calibration import ConfidenceBins
from multitask.evaluation.selective import Answers, Level, area_under_risk, risk_coverage, thinned

if TYPE_CHECKING:  # takes a second to import
    from matplotlib.figure import Figure

MAX_NAMES = 25  # in a confusion matrix
_MAX_CHARACTERS = 24  # of a name
_DPI = 150
_LINES = ("-", "--", "-.", ":")  # not everybody can tell lines apart by colour alone


def confusion(gold: np.ndarray, predicted: np.ndarray, size: int) -> np.ndarray:
    """Gold and predicted ids (n,) below `size` → counts (size, size): one row per gold id."""
    return np.bincount(gold.astype(np.int64) * size + predicted, minlength=size * size).reshape(size, size)


def reduced(counts: np.ndarray, names: Sequence[str], limit: int = MAX_NAMES) -> tuple[np.ndarray, list[str]]:
    """Reduce a confusion matrix (C, C) to at most `limit` of the names that occur: the most confused ones, in
    their order, and one for all others."""
    present = np.flatnonzero(counts.sum(0) + counts.sum(1))
    counts, names = counts[np.ix_(present, present)], [names[int(i)] for i in present]
    if len(names) <= limit:
        return counts, names
    wrong = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
    confused = np.sort(np.argsort(-wrong, kind="stable")[: limit - 1])
    group = np.full(len(names), limit - 1)
    group[confused] = np.arange(limit - 1)
    into = np.eye(limit, dtype=counts.dtype)[group]
    return into.T @ counts @ into, [*(names[i] for i in confused), f"({len(names) - len(confused)} others)"]


def draw_confusion(title: str, counts: np.ndarray, names: Sequence[str], kind: str = "png") -> bytes:
    """A confusion matrix (C, C) as an image file, `kind` "png" or "svg". Numbers are counts; the shade is the
    share of the row."""
    counts, names = reduced(counts, names)
    size = len(names)
    with _drawing(names) as (figure, labels):
        side = 2.5 + 0.36 * size
        figure.set_size_inches(max(side, 5), max(side, 4.2))
        axes = figure.add_subplot()
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(size), labels, rotation=90 if size > 4 else 0)
        axes.set_yticks(range(size), labels)
        axes.set(xlabel="predicted", ylabel="gold", title=title)
        for row, column in np.argwhere(counts):
            colour = "white" if share[row, column] > 0.5 else "black"
            number = abbreviate(int(counts[row, column]))
            text = axes.text(column, row, number, ha="center", va="center", color=colour, fontsize=7)
            text.set_in_layout(False)  # it is inside the axes, and layout is slow with hundreds
        return _image_file(figure, kind)


def draw_reliability(pairs: Mapping[str, Sequence[ConfidenceBins]], kind: str = "png") -> bytes:
    """Accuracy by confidence (DeGroot & Fienberg 1983) as an image file. Each panel has bins at temperature
    1 and, if that differs, at the model's own. A point's size is its bin's share of the predictions."""
    with _drawing(()) as (figure, _):
        figure.set_size_inches(4.2 * len(pairs), 4.5)
        for axes, (what, bins) in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs.items()):
            axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
            for stage, name, marker in zip(bins, ("temperature 1", "calibrated"), "os"):
                filled = stage.count > 0
                x, y = stage.confidence[filled], stage.accuracy[filled]
                (line,) = axes.plot(x, y, label=f"{name}: ECE {stage.error:.4f}", linewidth=1)
                sizes = 12 + 150 * stage.count[filled] / max(stage.count.sum(), 1)
                axes.scatter(x, y, s=sizes, marker=marker, color=line.get_color(), alpha=0.6)
            axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy")
            axes.set_title(f"{what} ({int(bins[0].count.sum()):,})")
            # below the axes: points may be anywhere in the square
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8)
        return _image_file(figure, kind)


def draw_risk(curves: Mapping[str, tuple[Answers, Sequence[Level]]], kind: str = "png") -> bytes:
    """Risk by coverage as an image file: the share of wrong predictions among the most confident ones. A
    point is what the threshold that dev sets for a wanted share of right predictions does here."""
    with _drawing(()) as (figure, _):
        figure.set_size_inches(4.2 * len(curves), 4.5)
        for axes, (what, (found, of_levels)) in zip(
            figure.subplots(1, len(curves), squeeze=False)[0], curves.items()
        ):
            coverage, risk = thinned(*risk_coverage(*found))
            axes.plot(coverage, risk, linewidth=1, label=f"area {area_under_risk(*found):.4f}")
            for level, marker in zip(of_levels, cycle("osD^")):
                if level.share_correct is not None:
                    point = level.share_kept, 1 - level.share_correct
                    axes.scatter(
                        *point,
                        marker=marker,
                        zorder=3,
                        clip_on=False,
                        label=f"{level.wanted:.0%} right wanted",
                    )
            axes.set(xlim=(0, 1.02), xlabel="share answered (coverage)", ylabel="share of wrong ones (risk)")
            axes.set_ylim(bottom=0)
            axes.set_title(f"{what} ({len(found.correct):,})")
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8, ncols=2)
        return _image_file(figure, kind)


def draw_curves(
    name: str, curves: Mapping[str, Sequence[float | None]], best: int | None, kind: str = "png"
) -> bytes:
    """Losses or scores by epoch as an image file; `best` is the epoch, from 1, of the saved model."""
    from matplotlib.ticker import MaxNLocator

    with _drawing(()) as (figure, _):
        figure.set_size_inches(4.6, 4)
        axes = figure.add_subplot()
        for (label, values), line, marker in zip(curves.items(), cycle(_LINES), cycle("osD^")):
            heights = np.array(values, float)  # None becomes NaN, a gap
            # at most about 20 markers; a single epoch is a point
            step = max(1, len(heights) // 20)
            epochs = range(1, len(heights) + 1)
            axes.plot(epochs, heights, line, label=label, marker=marker, markersize=4, markevery=step)
        if best is not None:
            axes.axvline(best, color="grey", linewidth=0.8, linestyle=":", label=f"best: epoch {best}")
        axes.set(xlabel="epoch", ylabel=name)
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))  # learned loss weights can make the loss negative
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8, ncols=2)
        return _image_file(figure, kind)


@contextmanager
def _drawing(names: Sequence[str]) -> Iterator[tuple[Figure, list[str]]]:
    """A figure, and the names shortened, printable and in fonts that have their characters."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    names = [printable(name) for name in names]
    names = [name if len(name) <= _MAX_CHARACTERS else f"{name[: _MAX_CHARACTERS - 1]}…" for name in names]
    families, missing = _fonts(set("".join(names)))
    if missing:  # escapes keep names distinct
        escapes = str.maketrans({c: c.encode("unicode_escape").decode() for c in missing})
        names = [name.translate(escapes) for name in names]
    # a name may contain dollar signs; a user's matplotlibrc must not change these plots
    plain: dict[str, Any] = {"font.family": families, "text.parse_math": False, "text.usetex": False}
    # otherwise the ids in an SVG are random
    plain |= {"svg.hashsalt": "", "svg.fonttype": "path"}
    with rc_context(plain):  # type: ignore[arg-type]  # its keys are literals in matplotlib's types
        yield Figure(layout="constrained"), names


def _fonts(characters: set[str]) -> tuple[list[str], set[str]]:
    """Font families that together have these characters, and the characters that no installed font has."""
    from matplotlib.font_manager import fontManager, get_font

    families: list[str] = []
    missing = characters - {" "}
    for font in sorted(fontManager.ttflist, key=lambda font: font.name != "DejaVu Sans"):
        if families and not missing:
            break
        if font.name in families or font.name.startswith("Last Resort"):  # it draws boxes
            continue
        supported = {c for c in missing if ord(c) in get_font(font.fname).get_charmap()}
        if supported or not families:
            families.append(font.name)
            missing -= supported
    return families, missing


def abbreviate(n: int) -> str:
    """At most four characters: 9999, 10k, 12M."""
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if n >= 10 * size:
            return f"{n // size}{unit}"
    return str(n)


def _image_file(figure: Figure, kind: str) -> bytes:
    file = BytesIO()
    # otherwise an SVG contains the time
    figure.savefig(file, format=kind, dpi=_DPI, metadata={"Date": None} if kind == "svg" else {})
    return file.getvalue()
