"""An HTML page in one file, which asks the network for nothing and runs nothing."""

import base64
import html
from collections.abc import Iterable, Sequence

from multitask.common.shell import printable

# contrasts are at least 4.5 : 1 in both schemes (WCAG 2.2, 1.4.3); pictures keep their light ground
_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1b1f24; --quiet: #57606a; --line: #d0d7de }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171b; --text: #e6e8eb; --quiet: #a3abb5; --line: #3a414a }
}
body { margin: 0 auto; max-width: 64rem; padding: 1rem; background: var(--ground); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1, h2, h3 { line-height: 1.25 }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line) }
.lead { font-size: 1.25rem }
.wide { overflow-x: auto; margin: 1rem 0 }
table { border-collapse: collapse; overflow-wrap: normal }
caption { text-align: start; color: var(--quiet); padding-bottom: .25rem }
th, td { padding: .25rem .75rem; border-top: 1px solid var(--line); text-align: start; vertical-align: top }
thead th { vertical-align: bottom }
tbody th { font-weight: normal }
.number { text-align: end; font-variant-numeric: tabular-nums; white-space: nowrap }
.long { min-width: 16rem; overflow-wrap: anywhere }
thead .number { white-space: normal }
figure { margin: 1rem 0 }
img { max-width: 100%; height: auto; background: #fff }
.beside { display: flex; flex-wrap: wrap; gap: 0 .5rem }
.beside figure { flex: 1 1 18rem; max-width: 30rem }
.beside img { width: 100% }
summary { cursor: pointer }
@media print { body { max-width: none } tr, figure { break-inside: avoid } .wide { overflow: visible } }
"""
_NOTHING_FROM_OUTSIDE = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_LONG = 32  # characters, from which a cell may be broken


class Number(str):
    """A number that is written as it stands here."""


def document(title: str, parts: Iterable[str]) -> bytes:
    """A page of these parts, which are HTML."""
    lines = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_NOTHING_FROM_OUTSIDE}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{plain(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>",
        f"<h1>{text(title)}</h1>",
        *parts,
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(lines).encode("utf-8", "backslashreplace")


def plain(value: object) -> str:
    """As text where no element can stand: nothing in it means something, nothing is obeyed."""
    return html.escape(printable(str(value)))


def text(value: object) -> str:
    """As text of a line, whose direction is its own: what stands around it keeps its place."""
    return f"<bdi>{plain(value)}</bdi>"


def paragraph(content: str, kind: str = "") -> str:
    return f"<p{_class(kind)}>{text(content)}</p>"


def heading(content: str, level: int = 2) -> str:
    return f"<h{level}>{text(content)}</h{level}>"


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The first cell of a row names it. Numbers stand on the right with their column's name, a float with
    four digits behind the point; None is a dash."""
    rows = [list(row) for row in rows]
    numbers = {at for row in rows for at, value in enumerate(row) if _is_number(value)}
    lines = [f'<div class="wide" role="region" tabindex="0" aria-label="{plain(caption)}">', "<table>"]
    lines += [f"<caption>{text(caption)}</caption>", "<thead><tr>"]
    for at, name in enumerate(head):
        lines.append(f'<th scope="col"{_class("number" if at in numbers else "")}>{text(name)}</th>')
    lines.append("</tr></thead>\n<tbody>")
    for first, *others in rows:
        cells = [_cell("th", first, ' scope="row"'), *(_cell("td", value) for value in others)]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</tbody>\n</table>\n</div>"])


def _cell(name: str, value: object, scope: str = "") -> str:
    if value is None:
        shown, kind = "–", "number"
    elif _is_number(value):
        shown, kind = value if isinstance(value, Number) else _written(value), "number"
    else:
        shown, kind = str(value), "long" if len(str(value)) > _LONG else ""
    return f"<{name}{scope}{_class(kind)}>{text(shown)}</{name}>"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, Number)) and not isinstance(value, bool)


def _written(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:,.4f}"


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def beside(pictures: Iterable[str]) -> str:
    """Pictures in a row where there is room, and else one below the other."""
    return f'<div class="beside">{"".join(pictures)}</div>'


def picture(alt: str, svg: bytes) -> str:
    """An SVG that is part of the page; as an image, nothing in it can run."""
    data = base64.b64encode(svg).decode()
    return f'<figure><img alt="{plain(alt)}" src="data:image/svg+xml;base64,{data}"></figure>'


def folded(summary: str, content: str) -> str:
    """HTML that is shown when its summary is clicked."""
    return f"<details>\n<summary>{text(summary)}</summary>\n{content}\n</details>"
