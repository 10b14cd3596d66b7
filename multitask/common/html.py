"""HTML from jinja2 templates: every value is escaped, and its control characters are printed as \\x1b."""

import base64
import shlex
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from multitask.common.shell import printable


class Number(str):
    """A number that is already formatted."""


def template_environment(folder: Path) -> Environment:
    """The templates of `folder`, which can extend base.html and import macros.html of common/templates.

    Only Markup is inserted as HTML. An undefined name in a template raises jinja2.UndefinedError."""
    environment = Environment(
        loader=FileSystemLoader([folder, Path(__file__).with_name("templates")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: value if isinstance(value, Markup) else printable(str(value)),
    )
    environment.tests["numeric"] = is_numeric
    environment.filters["formatted"] = format_value
    environment.filters["quoted"] = lambda path: shlex.quote(str(path))
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    return environment


def is_numeric(value: object) -> bool:
    """Whether a table aligns the value as a number. A bool is not a number."""
    return isinstance(value, (int, float, Number)) and not isinstance(value, bool)


def format_value(value: object) -> str:
    """The text of a value: None is a dash; an int has commas at the thousands, a float four decimals."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.4f}"
    return f"{value:,}" if is_numeric(value) and not isinstance(value, Number) else str(value)
