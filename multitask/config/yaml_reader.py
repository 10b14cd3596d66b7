"""A YAML reader for settings: the scalars of YAML 1.2, no aliases, no repeated keys."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from multitask.common.errors import InputError

_MAX_BYTES = 1 << 20  # of a file
_MAX_DEPTH = 10  # levels of nesting; more than any setting has
_MAX_KEY_LENGTH = 100  # characters
_CORE = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """A YAML 1.2 loader. In PyYAML's YAML 1.1, 2e-5 is a string, `no` is false, 012 is 10 and 1:30 is 90."""

    yaml_implicit_resolvers: dict = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError("", None, "aliases (*name) are not read", self.peek_event().start_mark)
        self.depth = getattr(self, "depth", 0) + 1
        if self.depth > _MAX_DEPTH:
            raise yaml.MarkedYAMLError("", None, "nested too deeply", self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(_CORE + _tag, re.compile(f"^(?:{_pattern})$"), list(_first))

_SCALARS: dict[str, Callable[[str], object]] = {
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "null": lambda text: {"": None, "~": None, "null": None}[text.lower()],
    "int": int,
    "float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
    "str": str,
}


def read_yaml(path: str | Path) -> tuple[dict, dict[str, str], list[str]]:
    """Read a file → (its values, "file:line" of each dotted key, problems of single keys).

    Raises InputError if the file as a whole can't be read."""
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise InputError(f"{path}: is no file")
        size = Path(path).stat().st_size
        if size > _MAX_BYTES:
            raise InputError(f"{path}: {size:,} bytes; a settings file has at most {_MAX_BYTES:,}")
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise InputError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    places: dict[str, str] = {}
    problems: list[str] = []
    node = _compose(text, str(path))
    values = {} if node is None else _value(node, "", str(path), places, problems)
    if not isinstance(values, dict):
        raise InputError(f"{path}:1: a settings file is a list of `key: value`")
    return values, places, problems


def parse_value(text: str) -> Any:
    """Parse an override's text as YAML → its value. Raises InputError if it can't be read."""
    problems: list[str] = []
    node = _compose(text, "")
    value = None if node is None else _value(node, "", "", {}, problems)
    if problems:
        raise InputError(problems[0])
    return value


def format_scalar(value: Any) -> str:
    """A setting's value as one line of YAML that means the same in YAML 1.1 and 1.2."""
    if isinstance(value, tuple | list):
        items = ", ".join(map(format_scalar, value))
        return items if len(value) == 1 else f"[{items}]" if value else "null"
    if isinstance(value, float) and "e" in (text := repr(value)):
        mantissa, exponent = text.split("e")
        return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{int(exponent):+d}"
    text = yaml.safe_dump(value, allow_unicode=True, width=10**9, default_flow_style=True)
    return text.strip().removesuffix("...").strip()


def _compose(text: str, source: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        line = f":{mark.line + 1}" if mark and source else ""
        raise InputError(
            f"{source}{line}{': ' if source else ''}not YAML that can be read: {problem}"
        ) from None


def _value(node: yaml.Node, key: str, source: str, places: dict[str, str], problems: list[str]) -> Any:
    """A node's value. Adds the places of its keys to `places`, and what is wrong with them to `problems`."""
    place = f"{source}:{node.start_mark.line + 1}" if source else ""
    places.setdefault(key, place)
    kind = node.tag.removeprefix(_CORE)
    if isinstance(node, yaml.SequenceNode) and kind == "seq":
        return [_value(item, f"{key}[]", source, places, problems) for item in node.value]
    if isinstance(node, yaml.ScalarNode) and kind in _SCALARS:
        if "\0" in node.value:
            problems.append(f"{place}: {key}: a NUL character")
            return None
        try:
            return _SCALARS[kind](node.value)
        except (ValueError, KeyError):  # an explicit tag, !!int x, or thousands of digits
            problems.append(f"{place}: {key}: not a {kind}: {node.value[:40]}")
            return None
    if not isinstance(node, yaml.MappingNode) or kind != "map":
        problems.append(f"{place}: {key}: the tag {node.tag} is not read")
        return None
    values: dict = {}
    for name_node, value_node in node.value:
        name = name_node.value if isinstance(name_node, yaml.ScalarNode) else str(name_node.tag)
        dotted = f"{key}.{name}" if key else name
        line = f"{source}:{name_node.start_mark.line + 1}" if source else "value"
        if len(name) > _MAX_KEY_LENGTH or not name.isprintable():
            problems.append(f"{line}: {ascii(name[:40])}: this is no key of a setting")
            continue
        if name in values:
            problems.append(f"{line}: {dotted}: this key stands twice; first at {places[dotted]}")
            continue
        places[dotted] = line
        values[name] = _value(value_node, dotted, source, places, problems)
    return values
