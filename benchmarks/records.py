"""The records in benchmarks/results/, and pictures that name the records they are drawn from."""

import io
import json
from collections.abc import Callable
from pathlib import Path

from benchmarks.provenance import made_by
from multitask.common.errors import InputError


class Records(dict):
    """benchmarks/results/NAME.json by NAME: those that were asked for, in that order. Raises InputError."""

    def __init__(self, root: Path):
        super().__init__()
        self.folder = root / "benchmarks" / "results"

    def __missing__(self, name: str) -> dict:
        try:
            self[name] = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"there is no benchmarks/results/{name}.json") from None
        except ValueError as error:
            raise InputError(f"benchmarks/results/{name}.json: no JSON: {error}") from None
        return self[name]


def svg(draw: Callable, records: dict[str, dict]) -> bytes:
    """A picture, with what made it as its description: the same bytes each time."""
    from matplotlib import style

    with (
        style.context(["default", {"svg.hashsalt": "results", "svg.fonttype": "none"}]),
        io.BytesIO() as file,
    ):
        figure = draw(records)
        about = {
            "Date": None,
            "Creator": None,
            "Description": made_by(list(records.values())).strip("_"),
        }
        figure.savefig(file, format="svg", facecolor="white", metadata=about)
        return file.getvalue()
