"""Named arrays that are kept on disk under a key: written whole or not at all, checked when read, mapped."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np

from multitask.common.atomic_files import NpyWriter, atomic_folder, open_file
from multitask.common.checksums import sha256_of
from multitask.common.errors import InputError

logger = logging.getLogger(__name__)

_FORMAT = 1  # of an entry; one of another format is made anew
_MANIFEST = "manifest.json"
_LEFT_FREE = 1 << 30  # bytes that stay free on a disk: a full one stops everything else too
_GB = 1e9


class ArrayCache:
    """A folder of entries. An entry is a folder named by its key: an .npy file an array, and a manifest with
    the size and SHA-256 of each, which is written last."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def load(self, key: str, say_why: bool = True) -> dict[str, np.ndarray] | None:
        """The arrays of an entry, mapped read-only; None where there is no such entry or it is damaged.

        A damaged one is never used: a line on standard error says so, unless `say_why` is false."""
        entry = self.folder / key
        if not entry.is_dir():
            return None
        try:
            return _read(entry, key)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if say_why:
                what = f"no {error}" if isinstance(error, KeyError) else error
                logger.warning(f"{entry}: can't be used and is made anew: {what}")
            return None

    @contextmanager
    def create(self, key: str) -> Iterator["EntryWriter"]:
        """A writer; the entry is there, in place of an older one, when the block ends without an error.

        Raises InputError where nothing can be written."""
        made = not self.folder.exists()
        try:
            self.folder.mkdir(exist_ok=True)
            if not os.access(self.folder, os.W_OK | os.X_OK):
                raise PermissionError(0, "not writable")
        except OSError as error:
            raise InputError(
                f"{self.folder}: nothing can be kept there ({error.strerror}); "
                "cache_dir names the folder, and null keeps nothing"
            ) from None
        try:
            with atomic_folder(self.folder / key) as folder:
                with ExitStack() as files:
                    writer = EntryWriter(folder, files)
                    yield writer
                    arrays = writer.finish()
                manifest = {"format": _FORMAT, "key": key, "arrays": arrays}
                with open_file(folder / _MANIFEST) as file:
                    file.write(json.dumps(manifest).encode())
        except BaseException:
            if made:
                with suppress(OSError):  # another run's entries may be in it by now
                    self.folder.rmdir()
            raise


class EntryWriter:
    """What fills an entry."""

    def __init__(self, folder: Path, files: ExitStack):
        self.folder, self.files = folder, files
        self.maps: dict[str, np.memmap] = {}
        self.growing: dict[str, NpyWriter] = {}

    def array(self, name: str, dtype: np.typing.DTypeLike, shape: tuple[int, ...]) -> np.memmap:
        """An array of zeros to fill in place. Raises OSError where the disk has no room for it."""
        path = self._new(name)
        self.maps[name] = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)
        if hasattr(os, "posix_fallocate"):  # not on macOS
            # a hole that finds no room when it is written to kills the process, without an exception
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return self.maps[name]

    def append(self, name: str, piece: np.ndarray) -> None:
        """Append to an array along its first axis. Raises ValueError for another dtype or other last axes."""
        if name not in self.growing:
            self.growing[name] = NpyWriter(self.files.enter_context(open_file(self._new(name))))
        self.growing[name].write(piece)

    def finish(self) -> dict[str, dict]:
        """Flush everything → what the manifest says of each array."""
        for array in self.maps.values():
            array.flush()
        for writer in self.growing.values():
            writer.finish()
            writer.file.flush()
        return {path.stem: _facts(path) for path in sorted(self.folder.glob("*.npy"))}

    def _new(self, name: str) -> Path:
        if name in self.maps or name in self.growing:
            raise ValueError(f"{name}: written twice")
        return self.folder / f"{name}.npy"


def digest(*parts: bytes | str | int | float | bool | None | np.ndarray) -> str:
    """A key: SHA-256 over the parts, each with its type and length, so that no two lists give one key."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            kind = f"{part.dtype.str} {part.shape}"
            content = np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
        else:
            kind = type(part).__name__
            content = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        for piece in (kind.encode(), content):
            found.update(len(piece).to_bytes(8, "little"))
            found.update(piece)
    return found.hexdigest()


def room(folder: str | Path) -> int:
    """Free bytes on the disk of a folder, which need not be there yet."""
    path = Path(folder).absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def check_disk_space(folder: str | Path, needed: int, what: str) -> None:
    """Raises InputError where `needed` bytes don't fit on the folder's disk with 1 GiB left free."""
    free = room(folder)
    if needed + _LEFT_FREE > free:
        raise InputError(
            f"{what} take about {needed / _GB:,.1f} GB in {folder}, and {_LEFT_FREE / _GB:.1f} GB stay free; "
            f"the disk has {free / _GB:,.1f} GB: make room, or let cache_dir name a folder on another disk"
        )


def _read(entry: Path, key: str) -> dict[str, np.ndarray]:
    """The arrays of an entry. Raises what reading a damaged one raises, ValueError for what does not fit."""
    manifest = json.loads((entry / _MANIFEST).read_bytes())
    if (manifest["format"], manifest["key"]) != (_FORMAT, key):
        raise ValueError("it is of another format or key")
    listed = manifest["arrays"]
    if {path.stem for path in entry.glob("*.npy")} != listed.keys():
        raise ValueError("its files are not those that it lists")
    return {name: _checked(entry / f"{name}.npy", facts) for name, facts in listed.items()}


def _checked(path: Path, facts: dict) -> np.ndarray:
    """A file's array, mapped. Raises ValueError where it is not what the manifest says."""
    if path.stat().st_size != facts["bytes"] or sha256_of(path) != facts["sha256"]:
        raise ValueError(f"{path.name} is not what was written")
    return np.load(path, mmap_mode="r")


def _facts(path: Path) -> dict:
    """What a manifest says of a file. dtype and shape are for people: the file's header, hashed, decides."""
    array = np.load(path, mmap_mode="r")
    shape, size = list(array.shape), path.stat().st_size
    return {"dtype": array.dtype.str, "shape": shape, "bytes": size, "sha256": sha256_of(path)}
