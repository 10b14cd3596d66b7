"""The files of a large input: those of a folder, or those that a pattern names, all of one format."""

import re
from collections.abc import Iterator
from glob import glob
from pathlib import Path

from multitask.common.errors import InputError, require_packages
from multitask.data.formats.files import JSON_LINES, PARQUET

_KINDS = {
    **dict.fromkeys(PARQUET, "Parquet"),
    **dict.fromkeys(JSON_LINES, "JSON Lines"),
    **dict.fromkeys((".txt", ""), "text"),  # Spark and Hadoop write texts without a suffix: part-00000
}
_PATTERN = re.compile(r"[*?\[]")
_READ = "Parquet, JSON Lines (.jsonl, .ndjson, .json) and text (.txt, or no suffix) are read"


def find_files(name: str) -> list[str]:
    """The files of a folder and its subfolders, of a pattern (`*`, `?`, `[…]`, `**`), or one file, by path.

    Names that begin with "." or "_" are left out, as Spark and Hadoop do. Raises InputError if there is no
    file, or one that is not read, or if they are of several formats."""
    files = sorted(_files_of(name))
    if not files:
        reason = "no file matches" if _PATTERN.search(name) else "no such file"
        raise InputError(f"{name}: {'holds no file' if Path(name).is_dir() else reason}; {_READ}")
    first: dict[str, str] = {}  # of each format
    for file in files:
        kind = _KINDS.get(Path(file).suffix.lower())
        if kind is None:
            raise InputError(f"{file}: on a cluster, {_READ}; a pattern leaves out other files")
        first.setdefault(kind, file)
    if len(first) > 1:
        named = " and ".join(f"{kind} ({file})" for kind, file in first.items())
        raise InputError(f"{name}: holds {named}; give a pattern that matches one format")
    if "Parquet" in first:
        require_packages(["pyarrow"], "a Parquet file", "requirements-parquet.txt")
    return files


def _files_of(name: str) -> Iterator[str]:
    path = Path(name)
    if path.is_file():
        yield name
    elif path.is_dir():
        yield from (str(file) for file in path.rglob("*") if file.is_file() and _is_shown(file, path))
    else:
        found = (Path(file) for file in glob(name, recursive=True))
        yield from (str(file) for file in found if file.is_file() and _is_shown(file, path))


def _is_shown(file: Path, asked: Path) -> bool:
    """Whether a file and its folders have no hidden names, but those that the user has written."""
    return not any(part.startswith((".", "_")) for part in file.parts if part not in asked.parts)
