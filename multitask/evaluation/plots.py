"""Pictures of a run: its curves, its model's mistakes, and how far its confidence can be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from multitask.common.shell import printable
from multitask.evaluation.calibration import ConfidenceBins

if TYPE_CHECKING:  # takes a second to import
    from matplotlib.figure import Figure

MOST = 25  # names that a matrix shows
_LONGEST = 24  # characters of a name
_DPI = 150
_LINES = ("-", "--", "-.", ":")  # colour alone does not tell lines apart for everybody


def confusion(gold: np.ndarray, said: np.ndarray, size: int) -> np.ndarray:
    """Ids (n,) below `size` → how often each was said where each is right, (size, size): a row a gold id."""
    return np.bincount(gold.astype(np.int64) * size + said, minlength=size * size).reshape(size, size)


def reduced(counts: np.ndarray, names: Sequence[str], most: int = MOST) -> tuple[np.ndarray, list[str]]:
    """A matrix of at most `most` names: those that occur, and of more than that those confused most often, in
    their order, and one for all others."""
    there = np.flatnonzero(counts.sum(0) + counts.sum(1))
    counts, names = counts[np.ix_(there, there)], [names[i] for i in there]
    if len(names) <= most:
        return counts, names
    wrong = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
    kept = np.sort(np.argsort(-wrong, kind="stable")[: most - 1])
    group = np.full(len(names), most - 1)
    group[kept] = np.arange(most - 1)
    into = np.eye(most, dtype=counts.dtype)[group]
    return into.T @ counts @ into, [*(names[i] for i in kept), f"({len(names) - len(kept)} others)"]


def draw_confusion(title: str, counts: np.ndarray, names: Sequence[str], kind: str = "png") -> bytes:
    """A confusion matrix (C, C) as a file of this `kind`, png or svg: numbers are counts, the shade is the
    share of the row."""
    counts, names = reduced(counts, names)
    size = len(names)
    with _drawing(names) as (figure, shown):
        side = 2.5 + 0.36 * size
        figure.set_size_inches(max(side, 5), max(side, 4.2))
        axes = figure.add_subplot()
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(size), shown, rotation=90 if size > 4 else 0)
        axes.set_yticks(range(size), shown)
        axes.set(xlabel="said", ylabel="right", title=title)
        for row, column in np.argwhere(counts):
            colour = "white" if share[row, column] > 0.5 else "black"
            number = _short_number(int(counts[row, column]))
            text = axes.text(column, row, number, ha="center", va="center", color=colour, fontsize=7)
            text.set_in_layout(False)  # it is inside of the axes, and there may be hundreds
        return _painted(figure, kind)


def draw_reliability(pairs: Mapping[str, Sequence[ConfidenceBins]], kind: str = "png") -> bytes:
    """Accuracy by confidence (DeGroot & Fienberg 1983), a panel each; bins at temperature 1 and, where that
    is another, at the model's own. The size of a point is the share of the answers in its bin."""
    with _drawing(()) as (figure, _):
        figure.set_size_inches(4.2 * len(pairs), 4.5)
        for axes, (what, bins) in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs.items()):
            axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
            for each, name, marker in zip(bins, ("temperature 1", "calibrated"), "os"):
                there = each.count > 0
                share = each.count[there] / max(each.count.sum(), 1)
                label = f"{name}: ECE {each.error:.4f}"
                (line,) = axes.plot(each.confidence[there], each.accuracy[there], label=label, linewidth=1)
                axes.scatter(
                    each.confidence[there],
                    each.accuracy[there],
                    s=12 + 150 * share,
                    marker=marker,
                    color=line.get_color(),
                    alpha=0.6,
                )
            axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy")
            axes.set_title(f"{what} ({int(bins[0].count.sum()):,})")
            # the answers may be anywhere in the square
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8)
        return _painted(figure, kind)


def draw_curves(
    what: str, curves: Mapping[str, Sequence[float | None]], best: int | None, kind: str = "png"
) -> bytes:
    """Losses or scores by epoch; `best` is the epoch, from 1, of the model that was kept."""
    with _drawing(()) as (figure, _):
        figure.set_size_inches(4.6, 4)
        axes = figure.add_subplot()
        for (name, values), line, marker in zip(curves.items(), cycle(_LINES), cycle("osD^")):
            values = [np.nan if value is None else value for value in values]
            # a hundred epochs are a line, one is a point
            each = max(1, len(values) // 20)
            epochs = range(1, len(values) + 1)
            axes.plot(epochs, values, line, label=name, marker=marker, markersize=4, markevery=each)
        if best is not None:
            axes.axvline(best, color="grey", linewidth=0.8, linestyle=":", label=f"kept: epoch {best}")
        axes.set(xlabel="epoch", ylabel=what)
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))  # learned weights may take a loss below 0
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8, ncols=2)
        return _painted(figure, kind)


@contextmanager
def _drawing(names: Sequence[str]) -> Iterator[tuple[Figure, list[str]]]:
    """A figure, and the names as they are written in it: plainly, in fonts that have their characters."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    names = [_shortened(printable(name)) for name in names]
    families, missing = _fonts(set("".join(names)))
    if missing:  # unique and readable, if no longer pretty
        names = ["".join(_escaped(c) if c in missing else c for c in name) for name in names]
    # a name may hold dollars; and what a person's matplotlibrc says of other pictures is not for these
    plain = {"font.family": families, "text.parse_math": False, "text.usetex": False}
    # an SVG's names of shapes are else drawn at random
    with rc_context({**plain, "svg.hashsalt": "", "svg.fonttype": "path"}):
        yield Figure(layout="constrained"), names


def _fonts(characters: set[str]) -> tuple[list[str], set[str]]:
    """Families that together have these characters, and the characters that no installed font has."""
    from matplotlib.font_manager import fontManager, get_font

    families, missing = [], {c for c in characters if c != " "}
    installed = sorted(fontManager.ttflist, key=lambda font: font.name != "DejaVu Sans")
    for font in installed:
        if families and not missing:
            break
        if font.name in families or font.name.startswith("Last Resort"):  # which draws boxes
            continue
        found = {c for c in missing if ord(c) in get_font(font.fname).get_charmap()}
        if found or not families:
            families.append(font.name)
            missing -= found
    return families, missing


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _short_number(n: int) -> str:
    """At most four characters: 9999, 10k, 12M."""
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if n >= 10 * size:
            return f"{n // size}{unit}"
    return str(n)


def _painted(figure: Figure, kind: str) -> bytes:
    file = BytesIO()
    # an SVG else holds the time
    figure.savefig(file, format=kind, dpi=_DPI, metadata={"Date": None} if kind == "svg" else {})
    return file.getvalue()
