"""A prediction as a person reads it at a terminal: the text with its entities marked, and the class."""

import os

from multitask.common.shell import printable
from multitask.data.labels import LabelSpace
from multitask.data.texts import Row
from multitask.inference.predictions import Prediction
from multitask.inference.writers import Render

_COLOURS = (36, 33, 35, 32, 34, 31)  # cyan, yellow, magenta, green, blue, red: on dark and light alike
_DIM, _BOLD, _OFF = "\x1b[2m", "\x1b[1m", "\x1b[0m"


def terminal_renderer(labels: LabelSpace) -> Render:
    """Entities in a colour a type, or in brackets where NO_COLOR is set (no-color.org)."""
    plain = bool(os.environ.get("NO_COLOR"))
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(labels.types)}

    def marked(text: str, name: str) -> str:
        if plain:
            return f"[{text}]({name})"
        return f"\x1b[1;{colours[name]}m{text}\x1b[22m {name}{_OFF}"

    def render(row: Row, said: Prediction | None) -> bytes:
        if said is None:
            return f"{row.reason}\n".encode()
        parts, at = [], 0
        for entity in said.entities or ():
            parts += [printable(said.text[at : entity.start])]
            parts += [marked(printable(entity.text), printable(entity.label))]
            at = entity.end
        parts.append(printable(said.text[at:]))
        if said.label is not None:
            chance = f"{said.label} {said.probabilities[said.label]:.3f}"
            parts.append(f"  ({printable(chance)})" if plain else f"  {_DIM}{printable(chance)}{_OFF}")
        return "".join([*parts, "\n"]).encode()

    return render
