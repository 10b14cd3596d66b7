"""Figures as SVG files that are the same bytes each time and name the commands that made them."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from benchmarks.provenance import made_by
from multitask.common.atomic_files import atomic_file, check_writable

if TYPE_CHECKING:  # takes a second to import
    from matplotlib.figure import Figure

Draw = Callable[[Mapping[str, dict]], "Figure"]  # records by name → a figure


def svg(draw: Draw, records: Mapping[str, dict]) -> bytes:
    """Draw records → an SVG file, with what made the records as its description."""
    from matplotlib import style

    context = style.context(["default", {"svg.hashsalt": "results", "svg.fonttype": "none"}])
    with context, io.BytesIO() as file:
        figure = draw(records)
        about = made_by(list(records.values())).strip("_")  # after drawing: it reads the records it needs
        metadata = {"Date": None, "Creator": None, "Description": about}
        figure.savefig(file, format="svg", facecolor="white", metadata=metadata)
        return file.getvalue()


def check_picture(path: str | None) -> None:
    """Raises InputError if `path` cannot become a picture. Call it before anything is measured."""
    if path:
        check_writable(path, ".svg")


def write_picture(path: str, draw: Draw, record: dict) -> None:
    """Draw the record of one study into a file."""
    content = svg(draw, {record["corpus"]: record})
    with atomic_file(path) as file:
        file.write(content)
