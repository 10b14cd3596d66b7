"""One JSON value of a file → a row in the project's JSON Lines form, whichever tool wrote it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from multitask.common.errors import InputError
from multitask.data.formats.tools import annotation_tools, hugging_face, label_studio
from multitask.data.formats.tools.annotation_tools import FileFacts
from multitask.data.notices import Notices
from multitask.data.rows import KEYS, BadRow

_KEYS = frozenset(KEYS)


class _Tool(NamedTuple):
    name: str  # read as ...
    recognizes: Callable[[dict], bool]
    take: Callable[[dict, FileFacts, int], dict]  # removes what it reads from the row
    metadata: tuple[str, ...] = ()  # keys that the tool always writes


_SPACY = _Tool("spaCy's training data", annotation_tools.is_spacy, annotation_tools.take_spacy)
_HUGGING_FACE = _Tool(
    "a Hugging Face dataset",
    hugging_face.is_dataset_row,
    hugging_face.take_dataset_row,
    hugging_face.METADATA,
)
_TOOLS = (
    _Tool("Label Studio's JSON", label_studio.is_task, label_studio.take_task, label_studio.TASK_METADATA),
    _Tool(
        "Label Studio's JSON_MIN or CSV",
        label_studio.is_min,
        label_studio.take_min,
        label_studio.MIN_METADATA,
    ),
    _Tool(
        "Prodigy's export",
        annotation_tools.is_prodigy,
        annotation_tools.take_prodigy,
        annotation_tools.PRODIGY_METADATA,
    ),
    _Tool(
        "doccano's export",
        annotation_tools.is_doccano,
        annotation_tools.take_doccano,
        annotation_tools.DOCCANO_METADATA,
    ),
    _SPACY,
    _HUGGING_FACE,
)


class Converter:
    """Turns the JSON values of one file into rows; adds to `notices` which tool wrote them.

    Without `annotated`, only the words of the rows of a tool are read, for prediction."""

    def __init__(self, path: str, notices: Notices, annotated: bool = True, features: dict | None = None):
        self.file = FileFacts(path, notices, features)
        self.annotated = annotated
        self.any_read = False

    def convert(self, value: Any, line: int) -> dict | BadRow:
        """A value → its row, or the reason why there is none.

        Raises InputError if the first row has numbers in place of names, as then all rows have."""
        if _is_own_form(value):
            self.any_read = True
            return value
        try:
            row = self._convert(value, line)
        except hugging_face.NoNames as reason:
            if self.any_read:
                return reason
            raise InputError(f"{self.file.path}:{line}: {reason}") from None
        except BadRow as reason:
            return reason
        self.any_read = True
        return row

    def _convert(self, value: object, line: int) -> dict:
        pair = annotation_tools.row_of_pair(value)
        row = value if pair is None else pair
        if not isinstance(row, dict):
            raise BadRow("a row is a JSON object, {...}")
        tool = _SPACY if pair else next((tool for tool in _TOOLS if tool.recognizes(row)), None)
        if tool is None:
            return row
        rest = dict(row)
        words = _take_words(rest)
        if not self.annotated:
            return words
        names = hugging_face.other_names(row) if tool is _HUGGING_FACE else {}
        annotation = tool.take(rest, self.file, line)
        for key in tool.metadata:
            rest.pop(key, None)
        renamed = ", ".join(f"{key} as {own}" for own, key in names.items())
        self.file.notices.add(f"read as {tool.name}{': ' if renamed else ''}{renamed}", line)
        return {**rest, **words, **annotation}


def _is_own_form(row: Any) -> bool:
    """Whether a value is a row in the project's form, with nothing in it that may be a tool's."""
    try:  # large files have little else than rows with three keys: the first test is the quickest
        if len(row) == 3 and type(row["label"]) is str:
            if "tokens" in row:
                return type(row["tokens"][0]) is str is type(row["tags"][0])
            return "start" in row["entities"][0] and "text" in row
    except (KeyError, IndexError, TypeError):
        pass
    if not isinstance(row, dict) or not row.keys() <= _KEYS or type(row.get("label", "")) is not str:
        return False
    firsts = {key: value[0] for key, value in row.items() if isinstance(value, list) and value}
    entity = firsts.pop("entities", {"start": 0})
    return isinstance(entity, dict) and "start" in entity and all(type(f) is str for f in firsts.values())


def _take_words(row: dict) -> dict:
    """Take the text or the words out of a row, which have other names in some tools."""
    if label_studio.is_task(row):
        return {"text": label_studio.text_of_task(row)}
    if "text" not in row and isinstance(row.get("data"), str):
        return {"text": row.pop("data")}
    tokens = row.get("tokens")
    if "text" in row and isinstance(tokens, list) and any(isinstance(token, dict) for token in tokens):
        row.pop("tokens")  # Prodigy's own words, as character spans of the text
    if "words" in row and not {"text", "tokens"} & row.keys():
        return {"tokens": row.pop("words")}
    return {key: row.pop(key) for key in ("text", "tokens") if key in row}
