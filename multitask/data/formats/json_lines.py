"""JSON Lines → rows."""

import json
from collections.abc import Iterator

from multitask.common.strict_json import RepeatedKey, loads_row
from multitask.data.formats.lines import Record, read_lines
from multitask.data.notices import Notices, abbreviate
from multitask.data.rows import BadRow


def read_json_lines(path: str, notices: Notices) -> Iterator[Record]:
    """Yield the rows of a JSON Lines file."""
    for line, text in read_lines(path):
        if not text.strip():
            continue
        try:
            row = loads_row(text)
        except json.JSONDecodeError as error:
            yield line, BadRow(f"not JSON: {error.msg} at column {error.colno}")
        except RepeatedKey as error:
            yield line, BadRow(f"an object has the key {abbreviate(error.key)} twice")
        except (ValueError, RecursionError):
            yield line, BadRow("JSON that can't be read: nested too deeply, or a number is too long")
        else:
            yield line, row if isinstance(row, dict) else BadRow("a row is a JSON object, {...}")
