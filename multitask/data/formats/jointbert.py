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
    """Yield the rows of a JointBERT folder."""
    names = [path.name for path in files_of_folder(folder)]
    if "seq.in" not in names:
        raise InputError(f"{folder}: no seq.in; JointBERT folders have seq.in, seq.out and label")
    counts = {name: sum(1 for _ in read_lines(folder / name)) for name in names}
    if len(set(counts.values())) > 1:
        raise InputError(f"{folder}: " + ", ".join(f"{name} has {n:,} lines" for name, n in counts.items()))
    columns = ((text for _, text in read_lines(folder / name)) for name in names)
    line = 0
    for line, values in enumerate(zip(*columns), 1):
        row = dict(zip(names, values))
        if any("\r" in text for text in values):
            yield line, BadRow(CARRIAGE_RETURN)
            continue
        record = {"tokens": split_at_spaces(row["seq.in"]), "label": row.get("label", "").strip() or None}
        yield line, {**record, "tags": split_at_spaces(row["seq.out"])} if "seq.out" in row else record
    if line != counts["seq.in"]:
        raise InputError(f"{folder}: changed while it was read")
