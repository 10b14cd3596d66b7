"""Rasa's training data in YAML: the examples of intents → rows."""

import re
from collections.abc import Iterator
from typing import Any

from multitask.common.errors import InputError, require_packages
from multitask.common.strict_json import loads
from multitask.data.formats.lines import Record, check_encoding
from multitask.data.notices import Notices, abbreviate
from multitask.data.rows import BadRow

_Node = Any  # yaml.Node; yaml is imported only where it is used

# [Oslo](city), [Oslo](city:value), [Oslo]{"entity": "city"} or [Oslo][{"entity": "city"}, ...]
_ENTITY = re.compile(r"\[([^\[\]]+)\](?:\(([^()]+)\)|(\{[^{}]*\})|(\[\s*\{[^\[\]]*\]))")


def read_rasa(path: str, notices: Notices) -> Iterator[Record]:
    """Yield the examples of all intents in a file. Other sections are named in `notices`.

    Raises InputError if the file is not YAML, or has no nlu section."""
    examples = list(_examples(path, notices))
    # without any entity in the file, nobody has marked entities
    annotated = any(_ENTITY.search(text) for _, _, text in examples if isinstance(text, str))
    for line, intent, text in examples:
        if isinstance(text, BadRow):
            yield line, text
            continue
        try:
            row, entities = _parse(text, notices, line)
        except BadRow as reason:
            yield line, reason
            continue
        notices.add("read as Rasa's examples of intents", line)
        yield line, {"text": row, "label": intent, **({"entities": entities} if annotated else {})}


def _parse(example: str, notices: Notices, line: int) -> tuple[str, list[dict]]:
    """The text of an example without its markup, and its entities."""
    text, at, entities = "", 0, []
    for match in _ENTITY.finditer(example):
        text += example[at : match.start()]
        at = match.end()
        words, short, long, several = match.groups()
        if several:
            raise BadRow(f"{abbreviate(words)} is several entities at once; a word has one tag")
        entity = {"entity": short.partition(":")[0]} if short else _object(long)
        if entity.keys() & {"role", "group"}:
            notices.add("the roles and groups of Rasa's entities are not read", line)
        start = len(text)
        text += words
        entities.append({"start": start, "end": len(text), "label": entity.get("entity")})
    return text + example[at:], entities


def _object(text: str) -> dict:
    try:
        return loads(text)
    except (ValueError, RecursionError):
        raise BadRow(f'{abbreviate(text)} is no JSON object such as {{"entity": "city"}}') from None


def _examples(path: str, notices: Notices) -> Iterator[tuple[int, str, str | BadRow]]:
    """Yield (line, intent, an example with its markup or what is wrong with it)."""
    root = _compose(path)
    sections = _mapping(root, path) if root else {}
    if "nlu" not in sections:
        raise InputError(f"{path}: no nlu section; Rasa's training data have nlu, and in it intents")
    for name, node in sections.items():
        if name not in ("version", "nlu"):
            notices.add(f"the section {abbreviate(name)} of a Rasa file is not read", _line(node))
    for item in _items(sections["nlu"], path):
        fields = _mapping(item, path)
        if "intent" not in fields:
            kind = abbreviate(next(iter(fields), ""))
            notices.add(f"Rasa's {kind} is not read; only intents are", _line(item))
            continue
        intent = _string(fields["intent"], path)
        if "examples" not in fields:
            raise InputError(f"{path}:{_line(item)}: the intent {abbreviate(intent)} has no examples")
        for line, text in _texts(fields["examples"], path):
            yield line, intent, text


def _texts(node: _Node, path: str) -> Iterator[tuple[int, str | BadRow]]:
    """Yield (line, example) of a block of lines that begin with "-", or of a list of objects with text."""
    if node.id == "scalar":
        literal = getattr(node, "style", None) == "|"  # its lines are the file's
        for number, text in enumerate(_string(node, path).split("\n"), 1):
            line = _line(node) + number * literal
            if text.strip().startswith("-"):
                yield line, text.strip()[1:].strip()
            elif text.strip():
                yield line, BadRow(f'an example begins with "- "; found {abbreviate(text.strip())}')
        return
    for item in _items(node, path):
        if item.id == "scalar":
            yield _line(item), _string(item, path).strip()
        elif "text" in (fields := _mapping(item, path)):
            yield _line(item), _string(fields["text"], path).strip().removeprefix("- ")
        else:
            yield _line(item), BadRow("an example without text")


def _compose(path: str) -> _Node:
    require_packages(["yaml"], "a YAML file", "requirements.txt")
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):
                line = self.peek_event().start_mark.line + 1
                raise InputError(f"{path}:{line}: aliases (*name) are not read")
            return super().compose_node(parent, index)

    with open(path, "rb") as file:
        raw = file.read()
    check_encoding(raw, path)
    try:
        return yaml.compose(raw.decode("utf-8-sig"), Loader)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise InputError(f"{path}: not YAML that can be read: nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else path
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{place}: not YAML that can be read: {problem}") from None


def _mapping(node: _Node, path: str) -> dict[str, _Node]:
    if node.id != "mapping":
        raise InputError(f"{path}:{_line(node)}: not an object of `key: value`")
    fields: dict[str, _Node] = {}
    for key, value in node.value:
        name = _string(key, path)
        if name in fields:
            raise InputError(f"{path}:{_line(key)}: the key {abbreviate(name)} stands twice")
        fields[name] = value
    return fields


def _items(node: _Node, path: str) -> list[_Node]:
    if node.id != "sequence":
        raise InputError(f"{path}:{_line(node)}: not a list")
    return node.value


def _string(node: _Node, path: str) -> str:
    if node.id != "scalar":
        raise InputError(f"{path}:{_line(node)}: not a string")
    return node.value


def _line(node: _Node) -> int:
    return node.start_mark.line + 1
