"""Finds the format of a file or folder, and yields its rows in their JSON Lines form."""

import re
from collections.abc import Iterator
from pathlib import Path

from multitask.common.errors import InputError
from multitask.data.formats.columns import read_columns
from multitask.data.formats.jointbert import files_of_folder, read_jointbert
from multitask.data.formats.json_lines import read_json_lines
from multitask.data.formats.lines import Record
from multitask.data.formats.parquet import read_parquet
from multitask.data.formats.tables import read_table
from multitask.data.formats.tools.annotation_tools import dataset_info
from multitask.data.formats.tools.rasa import read_rasa
from multitask.data.notices import Notices

JSON_LINES = (".jsonl", ".json", ".ndjson")
CONLL = (".conll", ".bio", ".iob", ".iob2")
_TABLES = {".csv": ",", ".tsv": "\t"}
PARQUET = (".parquet",)
_RASA = (".yml", ".yaml")
SUFFIXES = (*JSON_LINES, *_TABLES, *CONLL, ".conllu", *PARQUET, *_RASA)
_BRAT = (
    "brat's .ann files are not read; run its tools/anntoconll.py on the .txt files, and put the tag last: "
    "awk -F'\\t' '{print (NF ? $4 FS $1 : \"\")}' OLD.conll > NEW.conll"
)
_WEBANNO = "WebAnno TSV is not read; export the document from INCEpTION or WebAnno as CoNLL 2002 instead"
_JSON = re.compile(rb"\s*(\{|\[\s*\{)")


def read_records(path: str, notices: Notices | None = None, annotated: bool = True) -> Iterator[Record]:
    """Yield the rows of a file or a JointBERT folder. The suffix or else the content tells the format.

    Args:
        path: the file or folder.
        notices: gets what a person should know about the file.
        annotated: False to read the words alone of what annotation tools export, for prediction.

    Raises:
        InputError: the file as a whole can't be read."""
    notices = notices or Notices()
    if Path(path).suffix.lower() == ".ann" or (Path(path).is_dir() and any(Path(path).glob("*.ann"))):
        raise InputError(f"{path}: {_BRAT}")
    if Path(path).is_dir():
        return read_jointbert(Path(path), notices)
    if not Path(path).is_file():
        reason = "is a pipe or a device, not a file" if Path(path).exists() else "no such file"
        raise InputError(f"{path}: {reason}")
    with open(path, "rb") as file:
        start = file.read(4096).removeprefix(b"\xef\xbb\xbf")
    if start.startswith(b"#FORMAT=WebAnno TSV"):
        raise InputError(f"{path}: {_WEBANNO}")
    suffix = Path(path).suffix.lower()
    if suffix in _TABLES:
        return read_table(path, _TABLES[suffix], notices, annotated)
    if suffix in PARQUET:
        return read_parquet(path, notices, annotated)
    if suffix in _RASA:
        return read_rasa(path, notices)
    if suffix in JSON_LINES or (suffix not in CONLL and _JSON.match(start)):
        return read_json_lines(path, notices, annotated)
    return read_columns(path, notices)


def source_files(path: str | Path) -> list[Path]:
    """The files that are read for a path: itself, or files of a JointBERT folder. Empty if there are none.

    A dataset_info.json beside a JSON or Parquet file is one: it may give the names of its classes.

    Raises InputError as `files_of_folder`."""
    path = Path(path)
    if path.is_dir():
        return files_of_folder(path)
    if not path.is_file():
        return []
    info = dataset_info(path)
    has_names = path.suffix.lower() in (*JSON_LINES, *PARQUET) and path.name != info.name and info.is_file()
    return [path, info] if has_names else [path]
