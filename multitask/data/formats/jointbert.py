"""JointBERT folders: seq.in, seq.out and label, with one sentence on each line."""

from collections.abc import Iterator
from pathlib import Path

from multitask.common.errors import InputError
from multitask.data.formats.lines import CARRIAGE_RETURN, Record, read_lines, split_at_spaces
from multitask.data.notices import Notices
from multitask.data.rows import BadRow

_FILES = ("seq.in", "seq.out", "label")


def files_of_folder(folder: Path) -> list[Path]:
    """Those of the three files that a folder has.

    Raises InputError for a link out of the folder: the author of a folder must not choose other files."""
    files = [folder / name for name in _FILES if (folder / name).exists() or (folder / name).is_symlink()]
    for file in files:
        if not file.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{file}: is a link that leads out of its folder; copy the file into it")
        if not file.is_file():
            raise InputError(f"{file}: is not a file")
    return files


def read_jointbert(folder: Path, notices: Notices) -> Iterator[Record]:
    """Yield the rows of a JointBERT folder. Lines that are blank in all files at their end are no rows."""
    names = [path.name for path in files_of_folder(folder)]
    if "seq.in" not in names:
        raise InputError(f"{folder}: no seq.in; JointBERT folders have seq.in, seq.out and label")
    counts = {name: _count_lines(folder / name) for name in names}
    if len({lines for lines, _ in counts.values()}) > 1:
        lengths = ", ".join(f"{name} has {lines:,} lines" for name, (lines, _) in counts.items())
        raise InputError(f"{folder}: {lengths}")
    last = max(filled for _, filled in counts.values())
    columns = ((text for _, text in read_lines(folder / name)) for name in names)
    line = 0
    for line, values in enumerate(zip(*columns), 1):
        if line <= last:
            yield line, _row(dict(zip(names, values)), line)
    if line != counts["seq.in"][0]:
        raise InputError(f"{folder}: changed while it was read")


def _count_lines(path: Path) -> tuple[int, int]:
    """The number of lines of a file, and the number of its last line that is not blank."""
    line = last = 0
    for line, text in read_lines(path):
        last = line if text.strip() else last
    return line, last


def _row(row: dict[str, str], line: int) -> dict | BadRow:
    """The line of each file → a row. A blank line of label is a row without a class."""
    if any("\r" in text for text in row.values()):
        return BadRow(CARRIAGE_RETURN)
    for name in ("seq.in", "seq.out"):
        if not row.get(name, "-").strip():
            return BadRow(f"{name}:{line} is blank")
        if "\t" in row.get(name, ""):
            return BadRow(f"{name}:{line} has a tab; separate words and tags by blanks")
    record = {"tokens": split_at_spaces(row["seq.in"]), "label": row.get("label", "").strip() or None}
    return {**record, "tags": split_at_spaces(row["seq.out"])} if "seq.out" in row else record
