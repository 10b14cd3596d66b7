"""Checkpoints of a run: folders with checksums, holding tensors in safetensors and facts in JSON."""

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from multitask.common.atomic_files import disk, hide
from multitask.common.checksums import Buffer, ChecksumError, read_verified, write_with_checksums

_FORMAT = 1  # version of the meaning of facts and files; other versions are not read
_LIMIT = 2  # checkpoints that stay on disk
_FACTS = "state.json"
_NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: facts, and the bytes of each file by name."""

    path: Path
    facts: dict
    files: dict[str, bytes]


class Checkpoints:
    """The checkpoints of a run, one folder step-N each. Of those that this run wrote or read, the newest
    two stay."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.good: list[Path] = []
        self.remover = ThreadPoolExecutor(1)
        self.removals: list[Future[None]] = []

    def save(self, step: int, facts: dict, files: Iterable[tuple[str, Iterable[Buffer]]]) -> None:
        """Write a checkpoint, all or nothing; then remove older ones in the background."""
        self.wait()
        self.folder.mkdir(exist_ok=True)
        path = self.folder / f"step-{step:08}"
        write_with_checksums(path, _with_facts(files, facts))
        self.good = [*(other for other in self.good if other != path), path][-_LIMIT:]
        for other in self._paths():
            if other not in self.good:
                hidden = hide(other)
                self.removals.append(disk("remove", hidden, self.remover.submit, shutil.rmtree, hidden))

    def wait(self) -> None:
        """Wait for the removals, which take a third of the time of writing."""
        while self.removals:
            self.removals.pop().result()

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest undamaged checkpoint (None if there is none), and for each newer one a line with its
        damage."""
        skipped: list[str] = []
        for path in reversed(self._paths()):
            try:
                checkpoint, self.good = _read(path), [path]
                return checkpoint, skipped
            except ChecksumError as damage:
                skipped.append(f"{path}: {damage}")
        return None, skipped

    def _paths(self) -> list[Path]:
        numbers = ((_NAME.fullmatch(path.name), path) for path in self.folder.glob("step-*"))
        ordered = sorted((int(match[1]), path) for match, path in numbers if match)
        return [path for _, path in ordered if path.is_dir() and not path.is_symlink()]


def _with_facts(
    files: Iterable[tuple[str, Iterable[Buffer]]], facts: dict
) -> Iterator[tuple[str, Iterable[Buffer]]]:
    names = []
    for name, content in files:
        names.append(name)
        yield name, content
    text = json.dumps({"format": _FORMAT, "files": names, **facts}, indent=1, allow_nan=False)
    yield _FACTS, [text.encode()]


def _read(path: Path) -> Checkpoint:
    files = read_verified(path)
    try:
        facts = json.loads(files.pop(_FACTS))
        version, names = facts["format"], facts["files"]
    except (KeyError, ValueError, TypeError, RecursionError):
        raise ChecksumError(f"{_FACTS} is missing or invalid") from None
    if version != _FORMAT:
        raise ChecksumError(f"its format is {version}; only {_FORMAT} can be read")
    if sorted(files) != sorted(names):
        raise ChecksumError(f"its files differ from the list in {_FACTS}")
    return Checkpoint(path, facts, files)
