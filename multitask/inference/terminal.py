"""Predictions for reading at a terminal: the text with its entities marked, and the class."""

import os

from multitask.common.shell import printable
from multitask.data.labels import LabelSpace
from multitask.data.texts import Row, UnreadableRow
from multitask.inference.predictions import Prediction
from multitask.inference.writers import Render

_COLOURS = (36, 33, 35, 32, 34, 31)  # cyan, yellow, magenta, green, blue, red: legible on dark and light
_DIM, _OFF = "\x1b[2m", "\x1b[0m"


def terminal_renderer(labels: LabelSpace) -> Render:
    """Mark entities with one colour per type, or with brackets if NO_COLOR is set (no-color.org)."""
    plain = bool(os.environ.get("NO_COLOR"))
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(labels.types)}

    def mark(text: str, name: str) -> str:
        if plain:
            return f"[{text}]({name})"
        return f"\x1b[1;{colours[name]}m{text}\x1b[22m {name}{_OFF}"

    def render(row: Row, prediction: Prediction | None) -> bytes:
        if isinstance(row, UnreadableRow):
            return f"{row.reason}\n".encode()
        assert prediction is not None
        text, parts, position = prediction.text, [], 0
        for entity in prediction.entities or ():
            parts += [printable(text[position : entity.start])]
            parts += [mark(printable(entity.text), printable(entity.label))]
            position = entity.end
        parts.append(printable(text[position:]))
        if prediction.probabilities:
            name = prediction.label
            label = "unsure" if name is None else printable(f"{name} {prediction.probabilities[name]:.3f}")
            parts.append(f"  ({label})" if plain else f"  {_DIM}{label}{_OFF}")
        return "".join([*parts, "\n"]).encode()

    return render
