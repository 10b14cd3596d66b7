"""Arrays in .npy files: written piece by piece, and cached on disk by name: written atomically, verified by
checksums, read as memory maps."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from multitask.common.atomic_files import atomic_folder, open_file
from multitask.common.checksums import sha256_of
from multitask.common.errors import InputError

logger = logging.getLogger(__name__)

_FORMAT = 1  # of an entry; entries of other formats are rebuilt
_MANIFEST = "manifest.json"
_LEFT_FREE = 1 << 30  # bytes that stay free: a full disk stops other programs too
_GB = 1e9


class ArrayCache:
    """A folder of entries. Each entry is a folder named by its key, with one .npy file per array and a
    manifest, written last, that holds each file's size and SHA-256."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def load(self, key: str) -> dict[str, np.ndarray] | None:
        """The arrays of an entry, memory-mapped and read-only; None if it is missing or damaged.

        Logs a warning for a damaged entry, which is never used."""
        entry = self.folder / key
        if not entry.is_dir():
            return None
        try:
            return _read(entry, key)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            logger.warning(f"{entry}: can't be used and is made anew: {reason}")
            return None

    @contextmanager
    def create(self, key: str) -> Iterator["EntryWriter"]:
        """Context of an EntryWriter. If the block ends without an error, the entry replaces an older one.

        Raises InputError if the folder can't be written to."""
        is_new = not self.folder.exists()
        try:
            self.folder.mkdir(exist_ok=True)
            if not os.access(self.folder, os.W_OK | os.X_OK):
                raise PermissionError(0, "not writable")
        except OSError as error:
            raise InputError(
                f"{self.folder}: can't be written to ({error.strerror}); "
                "set cache_dir to another folder, or to null for no cache"
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
            if is_new:
                with suppress(OSError):  # another run may have added entries by now
                    self.folder.rmdir()
            raise


class EntryWriter:
    """Writes the arrays of one entry."""

    def __init__(self, folder: Path, files: ExitStack):
        self.folder, self.files = folder, files
        self.maps: dict[str, np.memmap] = {}
        self.appended: dict[str, NpyWriter] = {}

    def array(self, name: str, dtype: np.typing.DTypeLike, shape: tuple[int, ...]) -> np.memmap:
        """An array of zeros to fill in place. Raises OSError if the disk has no room for it."""
        path = self._new_file(name)
        self.maps[name] = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)
        if hasattr(os, "posix_fallocate"):  # not on macOS
            # without this, writing to the map of a sparse file on a full disk kills the process (SIGBUS)
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return self.maps[name]

    def append(self, name: str, piece: np.ndarray) -> None:
        """Append rows (n, ...) to an array. Raises ValueError if their dtype or shape (...) differs."""
        if name not in self.appended:
            self.appended[name] = NpyWriter(self.files.enter_context(open_file(self._new_file(name))))
        self.appended[name].write(piece)

    def finish(self) -> dict[str, dict]:
        """Flush all arrays → the manifest's facts about each."""
        for array in self.maps.values():
            array.flush()
        for writer in self.appended.values():
            writer.finish()
            writer.file.flush()
        files = sorted(self.folder.glob("*.npy"))
        return {path.stem: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in files}

    def _new_file(self, name: str) -> Path:
        if name in self.maps or name in self.appended:
            raise ValueError(f"{name}: written twice")
        return self.folder / f"{name}.npy"


class NpyWriter:
    """Writes an array into an .npy file piece by piece; `finish` writes the number of rows.

    To continue a file that holds float32 rows already, give their number and the shape of one."""

    def __init__(self, file: BinaryIO, rows: int = 0, row_shape: tuple[int, ...] = (0,)):
        self.file, self.rows = file, rows
        self.dtype, self.row_shape = np.dtype(np.float32), row_shape  # if no piece comes

    def write(self, piece: np.ndarray) -> None:
        """Append rows (n, ...). Raises ValueError if dtype or shape differ from the first piece's."""
        if self.file.tell() == 0:
            self.dtype, self.row_shape = piece.dtype, piece.shape[1:]
            self._header()
        if (piece.dtype, piece.shape[1:]) != (self.dtype, self.row_shape):
            raise ValueError(f"{piece.dtype} {piece.shape} after rows of {self.dtype} {self.row_shape}")
        self.rows += len(piece)
        self.file.write(piece.tobytes())

    def finish(self) -> None:
        """Write the number of rows. numpy reserves room for it: the header keeps its length."""
        self.file.seek(0)
        self._header()
        self.file.seek(0, os.SEEK_END)

    def _header(self) -> None:
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.rows, *self.row_shape)}
        np.lib.format.write_array_header_1_0(self.file, header)


def digest(*parts: bytes | str | int | float | bool | None | np.ndarray) -> str:
    """A key: SHA-256 over the parts, each with its type and length. Different lists have different keys."""
    sha256 = hashlib.sha256()
    content: bytes | memoryview
    for part in parts:
        if isinstance(part, np.ndarray):
            kind = f"{part.dtype.str} {part.shape}"
            content = np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
        else:
            kind = type(part).__name__
            content = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        for piece in (kind.encode(), content):
            sha256.update(len(piece).to_bytes(8, "little"))
            sha256.update(piece)
    return sha256.hexdigest()


def free_bytes(folder: str | Path) -> int:
    """Free bytes on the disk of a folder, which need not exist yet."""
    path = Path(folder).absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def check_disk_space(folder: str | Path, needed: int, content: str) -> None:
    """Raises InputError if `needed` bytes of `content` don't fit on the folder's disk with 1 GiB to spare."""
    free = free_bytes(folder)
    if needed + _LEFT_FREE > free:
        raise InputError(
            f"{content} take about {needed / _GB:,.1f} GB in {folder}, and {_LEFT_FREE / _GB:.1f} GB "
            f"stay free; the disk has {free / _GB:,.1f} GB: make room, "
            "or set cache_dir to a folder on another disk"
        )


def _read(entry: Path, key: str) -> dict[str, np.ndarray]:
    """The arrays of an entry. Raises ValueError, or what the readers of JSON and files raise, for damage."""
    manifest = json.loads((entry / _MANIFEST).read_bytes())
    if (manifest["format"], manifest["key"]) != (_FORMAT, key):
        raise ValueError("its format or key differs")
    arrays = manifest["arrays"]
    if {path.stem for path in entry.glob("*.npy")} != arrays.keys():
        raise ValueError("its files are not those in its manifest")
    for name, facts in arrays.items():
        path = entry / f"{name}.npy"
        if path.stat().st_size != facts["bytes"] or sha256_of(path) != facts["sha256"]:
            raise ValueError(f"{path.name} is not what was written")
    return {name: np.load(entry / f"{name}.npy", mmap_mode="r") for name in arrays}
