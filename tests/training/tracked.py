"""What a tracker must have of a run."""

import json
from pathlib import Path

import pytest


def expected(run: Path) -> dict[str, list[tuple[int, float]]]:
    """All scalars of a run's metrics.jsonl: name → (step, value), in their order."""
    points, step = {}, 0
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        step = row.pop("step", step)
        for name in ("dev", "test", "loss_weights"):
            row |= {f"{name}/{key}": value for key, value in row.pop(name, {}).items()}
        for tag, value in row.items():
            points.setdefault(tag, []).append((step, pytest.approx(value, rel=1e-6)))
    return points
