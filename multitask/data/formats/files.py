"""Finds the format of a file or folder, and yields its rows in their JSON Lines form."""

from collections.abc import Iterator
from pathlib import Path

from multitask.common.errors import InputError
from multitask.data.formats.columns import read_columns
from multitask.data.formats.jointbert import files_of_folder, read_jointbert
from multitask.data.formats.json_lines import read_json_lines
from multitask.data.formats.lines import Record
from multitask.data.formats.tables import read_table
from multitask.data.notices import Notices

JSON_LINES = (".jsonl", ".json", ".ndjson")
CONLL = (".conll", ".bio", ".iob", ".iob2")
_TABLES = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*JSON_LINES, *_TABLES, *CONLL)


def read_records(path: str, notices: Notices | None = None) -> Iterator[Record]:
    """Yield the rows of a file or a JointBERT folder. The suffix or else the content tells the format.

    Adds to `notices` what a person should know about the file. Raises InputError if the file as a whole
    can't be read."""
    notices = notices or Notices()
    if Path(path).is_dir():
        return read_jointbert(Path(path), notices)
    if not Path(path).is_file():
        reason = "is a pipe or a device, not a file" if Path(path).exists() else "no such file"
        raise InputError(f"{path}: {reason}")
    suffix = Path(path).suffix.lower()
    if suffix in JSON_LINES:
        return read_json_lines(path, notices)
    if suffix in _TABLES:
        return read_table(path, _TABLES[suffix], notices)
    if suffix in CONLL:
        return read_columns(path, notices)
    with open(path, "rb") as file:
        begins_with_brace = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    return read_json_lines(path, notices) if begins_with_brace else read_columns(path, notices)


def source_files(path: str | Path) -> list[Path]:
    """The files that are read for a path: itself, or files of a JointBERT folder. Empty if there are none.

    Raises InputError as `files_of_folder`."""
    path = Path(path)
    if path.is_dir():
        return files_of_folder(path)
    return [path] if path.is_file() else []
