"""The pictures of results, drawn from records in benchmarks/results/ for write_up.py."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks.names import DEFAULTS, OURS, TUNED
from benchmarks.records import Results
from benchmarks.result_tables import ENCODE, PIPELINES, TRAINED

if TYPE_CHECKING:  # takes a second to import
    from matplotlib.figure import Figure

OWN, OTHER = "#2563a8", "#a8adb5"
Bar = tuple[str, float, bool]  # name, sentences per second, whether it is this project


def speed(results: Results) -> Figure:
    """Sentences per second of training and prediction with this project and others: medians of the rounds."""
    from matplotlib.figure import Figure

    panels = panels_of(results)
    figure = Figure(figsize=(8.3, 6.4), layout="constrained")
    grid = figure.subplots(len(panels), 1, height_ratios=[len(bars) + 0.9 for bars in panels.values()])
    for axes, (title, bars) in zip(grid, panels.items()):
        names, speeds, own = zip(*bars)
        colours = [OWN if is_own else OTHER for is_own in own]
        drawn = axes.barh(range(len(bars)), speeds, color=colours, height=0.78)
        axes.bar_label(drawn, [f"{value:,.0f}" for value in speeds], padding=4)
        axes.set_yticks(range(len(bars)), names)
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
        axes.set_xlim(0, 1.12 * max(speeds))  # each panel has its own scale
        axes.invert_yaxis()
        axes.xaxis.set_visible(False)
        axes.tick_params(left=False)
        axes.spines[:].set_visible(False)
    return figure


def panels_of(results: Results) -> dict[str, list[Bar]]:
    """Title of a panel → its bars."""
    panels = {}
    titles = {OURS: "this project", DEFAULTS: "transformers.Trainer", TUNED: "the same, tuned"}
    for name, what in TRAINED:
        measured = results[name]["results"]
        panels[f"Training {what}, sentences/s"] = [
            (title, measured[key]["sentences_per_second"], key == OURS) for key, title in titles.items()
        ]
    speeds = results["predict_speed"]["sentences_per_second"]
    middle = {name: statistics.median(rounds) for name, rounds in speeds.items()}
    panels["Class, probabilities and entities, sentences/s"] = [
        ("this project", middle["Predictor"], True),
        ("exported to ONNX, int8", middle["ONNX int8"], True),
        ("transformers' two pipelines", middle[PIPELINES], False),
    ]
    panels["Sentence embeddings, sentences/s"] = [
        ("this project", middle["embed"], True),
        ("sentence-transformers", middle[ENCODE], False),
    ]
    return panels
