"""Pictures of the studies: score against time by what is frozen, and learning curves."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from benchmarks.names import JOINT, LEAST_SURE, RANDOM, A, B

if TYPE_CHECKING:  # takes a second to import
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCORES = {"accuracy": "task A accuracy", "entity_f1": "task B F1"}
BLUE, ORANGE, GREY = "#2563a8", "#c2570c", "#6b7280"
LAYERS = "layers frozen"  # choices with this ending are joined by a line
NAMED = {  # short names of the others, and their offset from the point
    "backbone frozen": ("backbone", (7, -11)),
    "backbone frozen, 10 times the epochs": ("backbone,\n10 × epochs", (7, -11)),
    "nothing frozen": ("nothing", (7, 3)),
    "LoRA, rank 8": ("LoRA", (7, -9)),
}


def score_against_time(records: Mapping[str, dict]) -> Figure:
    """A row of panels for each corpus (name → record): mean scores by the CPU seconds of a run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.3, 3.4 * len(records)), layout="constrained")
    grid = figure.subplots(len(records), 2, squeeze=False)
    for row, (corpus, record) in zip(grid, records.items()):
        for axes, (score, title) in zip(row, SCORES.items()):
            _against_time(axes, record["results"], score)
            axes.set_title(f"{corpus}: {title}", loc="left", fontsize=10, fontweight="bold")
            axes.set_xlabel("CPU seconds of a run; numbers: lowest layers that are frozen", fontsize=8)
    return figure


def _against_time(axes: Axes, results: dict[str, dict], score: str) -> None:
    layers = [name for name in results if name.endswith(LAYERS)]
    points = {name: _point(results[name], score) for name in (*NAMED, *layers) if name in results}
    line = [points[name] for name in (*layers, "nothing frozen")]
    axes.plot(*zip(*line), color=BLUE, linewidth=1, zorder=1)
    for name, (seconds, mean) in points.items():
        spread = stdev(results[name][score]) if len(results[name][score]) > 1 else 0
        colour = BLUE if name in layers or name == "nothing frozen" else ORANGE
        axes.errorbar(seconds, mean, spread, fmt="o", markersize=5, color=colour, capsize=2, linewidth=1)
        text, offset = NAMED.get(name, (name.split()[1], (-11, 5)))
        axes.annotate(text, (seconds, mean), offset, textcoords="offset points", fontsize=8, color=colour)
    axes.margins(x=0.16, y=0.12)
    _plain(axes)


def _point(result: dict, score: str) -> tuple[float, float]:
    return fmean(result["cpu_seconds"]), fmean(result[score])


def learning_curves(records: Mapping[str, dict]) -> Figure:
    """A row of panels for each corpus (name → record): scores by training sentences, of one model for both
    tasks and of a model for one task."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(8.3, 3.2 * len(records)), layout="constrained")
    grid = figure.subplots(len(records), 2, squeeze=False)
    for row, (corpus, record) in zip(grid, records.items()):
        curves = record["results"]["curves"].values()
        sentences = [share["rows"] for share in curves]
        for axes, (score, title), alone in zip(row, SCORES.items(), (A, B)):
            for kind, colour, name in ((JOINT, BLUE, "both in one model"), (alone, ORANGE, "alone")):
                _curve(axes, sentences, [share[kind][score] for share in curves], colour, name)
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
            _name(axes, f"{corpus}: {title}", "training sentences", sentences)
    return figure


def labelling_curves(records: Mapping[str, dict]) -> Figure:
    """A row of panels for each corpus (name → record): scores by the number of labelled sentences, in random
    order and in that of task_5.py suggest."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.3, 3.2 * len(records)), layout="constrained")
    grid = figure.subplots(len(records), 2, squeeze=False)
    for row, (corpus, record) in zip(grid, records.items()):
        for number, (axes, title) in enumerate(zip(row, SCORES.values())):
            for order, colour, name in (
                (RANDOM, ORANGE, "in random order"),
                (LEAST_SURE, BLUE, "in the order of suggest"),
            ):
                seeds = record["curves"][order]
                values = [[curve[at][number] for curve in seeds] for at in range(len(record["labelled"]))]
                _curve(axes, record["labelled"], values, colour, name)
            _name(axes, f"{corpus}: {title}", "labelled sentences", record["labelled"])
    return figure


def _curve(axes: Axes, counts: list[int], values: list[list[float]], colour: str, name: str) -> None:
    """Mean and standard deviation of each count's seeds."""
    spreads = [stdev(seeds) if len(seeds) > 1 else 0 for seeds in values]
    axes.errorbar(
        counts, list(map(fmean, values)), spreads, fmt="o-", markersize=4, color=colour, capsize=2,
        linewidth=1.2, label=name,
    )  # fmt: skip


def _name(axes: Axes, title: str, counted: str, counts: list[int]) -> None:
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel(counted, fontsize=9)
    axes.legend(fontsize=8, loc="lower right", frameon=False)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.grid(color="#e5e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(labelsize=8, color=GREY)
