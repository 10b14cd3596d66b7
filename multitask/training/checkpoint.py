"""Checkpoints of a run: sealed folders of tensors in safetensors and of facts in JSON."""

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from multitask.common.atomic_files import disk, hide
from multitask.common.checksums import Buffer, ChecksumError, read_verified, write_with_checksums

_FORMAT = 1  # of what the facts and files mean; a checkpoint of another one is not used
_KEPT = 2
_FACTS = "state.json"
_NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """What was saved: facts, and files by name, as they were when they were written."""

    path: Path
    facts: dict
    files: dict[str, bytes]


class Checkpoints:
    """The checkpoints in a folder, a folder step-N each. The newest two that this run wrote or used stay."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.good: list[Path] = []
        self.remover, self.removals = ThreadPoolExecutor(1), []

    def save(self, step: int, facts: dict, files: Iterable[tuple[str, Iterable[Buffer]]]) -> None:
        """Write a checkpoint, all or nothing; then older ones go."""
        self.wait()
        self.folder.mkdir(exist_ok=True)
        path = self.folder / f"step-{step:08}"
        write_with_checksums(path, _with_facts(files, facts))
        self.good = [*(other for other in self.good if other != path), path][-_KEPT:]
        for other in self._paths():
            if other not in self.good:
                hidden = hide(other)
                self.removals.append(disk("remove", hidden, self.remover.submit, shutil.rmtree, hidden))

    def wait(self) -> None:
        """Wait until what was removed is gone: that takes a third of the time of writing."""
        while self.removals:
            self.removals.pop().result()

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that is as it was written, and why newer ones are not used, a line each."""
        skipped = []
        for path in reversed(self._paths()):
            try:
                checkpoint = _read(path)
            except ChecksumError as damage:
                skipped.append(f"{path}: {damage}")
                continue
            self.good = [path]
            return checkpoint, skipped
        return None, skipped

    def _paths(self) -> list[Path]:
        numbers = ((_NAME.fullmatch(path.name), path) for path in self.folder.glob("step-*"))
        found = sorted((int(match[1]), path) for match, path in numbers if match)
        return [path for _, path in found if path.is_dir() and not path.is_symlink()]


def _with_facts(
    files: Iterable[tuple[str, Iterable[Buffer]]], facts: dict
) -> Iterator[tuple[str, Iterable[Buffer]]]:
    names = []
    for name, content in files:
        names.append(name)
        yield name, content
    content = json.dumps({"format": _FORMAT, "files": names, **facts}, indent=1, allow_nan=False)
    yield _FACTS, [content.encode()]


def _read(path: Path) -> Checkpoint:
    files = read_verified(path)
    try:
        facts = json.loads(files.pop(_FACTS))
        found, names = facts["format"], facts["files"]
    except (KeyError, ValueError, TypeError, RecursionError):
        raise ChecksumError(f"{_FACTS} is missing, or no list of facts") from None
    if found != _FORMAT:
        raise ChecksumError(f"it is of format {found}, and only {_FORMAT} is read")
    if sorted(files) != sorted(names):
        raise ChecksumError(f"its files are not those that {_FACTS} names")
    return Checkpoint(path, facts, files)
