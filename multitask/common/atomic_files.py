"""Files and folders that are there whole or not at all, after a kill or on a full disk too."""

import ctypes
import fcntl
import io
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from multitask.common.errors import InputError

logger = logging.getLogger(__name__)

_BUFFER = 1 << 20  # bytes
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux's renameat2


def disk(kind: str, path: Path, call: Callable, *arguments: Any) -> Any:
    """Call what changes the disk: a "write", "sync", "link", "rename" or "remove" of a path.

    All writing goes through here, so that it can be counted, and cut short at any point. An OSError names the
    path: writing to a full disk raises one without."""
    try:
        return call(*arguments)
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


class _Raw(io.FileIO):
    """A file whose writes go through `disk`."""

    def __init__(self, path: Path, mode: str):
        super().__init__(path, mode)
        self.path = path

    def write(self, data) -> int:
        return disk("write", self.path, super().write, data)


def open_file(path: Path, mode: str = "x") -> BinaryIO:
    """A new file ("x"), or one that is appended to ("a"), replaced ("w") or changed ("r+"), in binary.

    Closed, it still wants its `sync`."""
    return io.BufferedWriter(_Raw(path, mode), _BUFFER)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk: a rename may get there before it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        disk("sync", path, os.fsync, handle)
    finally:
        os.close(handle)


def rename(source: Path, target: Path) -> None:
    """Give a file or folder another name, in place of a file of that name."""
    disk("rename", target, os.replace, source, target)


def link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the disk has no such names."""
    try:
        disk("link", target, os.link, source, target)
    except OSError:
        with open(source, "rb") as content, open_file(target) as file:
            shutil.copyfileobj(content, file, _BUFFER)


def lock(path: Path, otherwise: str) -> int:
    """A handle of a file or folder that other processes can't lock, until it is closed or the process ends.

    Raises InputError, with these words, where another one has it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InputError(f"{path}: {otherwise}") from None
    except OSError as error:  # some network disks have no locks
        logger.warning(f"{path}: can't be locked ({error.strerror}): let no second process write to it")
    return handle


def append(path: Path, data: bytes) -> None:
    """Append to a file, and wait until it is on the disk."""
    with open_file(path, "a") as file:
        file.write(data)
    sync(path)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """A file that takes its name when the block ends without an error, and else leaves nothing.

    Raises InputError if its folder is missing or it is itself a folder."""
    path = Path(path)
    check_writable(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with open_file(temporary, "w") as file:
            yield file
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's 0600 is for secrets
        sync(temporary)
        rename(temporary, path)
        sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A folder to fill, which replaces `path` if the block ends without an error; else `path` stays.

    Its files are not to be open any more. On Linux there is a `path` at every moment of it; elsewhere what it
    was has another name for a moment, and a process that is killed then leaves it there."""
    path = Path(path)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    replaced = temporary.with_name(f"{temporary.name}.replaced")
    try:
        yield temporary
        for file in temporary.rglob("*"):
            os.chmod(file, (0o777 if file.is_dir() else 0o666) & ~_umask())
            sync(file)
        os.chmod(temporary, 0o777 & ~_umask())
        sync(temporary)
        if not path.exists():
            rename(temporary, path)
        elif disk("rename", path, _exchanged, temporary, path):
            replaced = temporary
        else:
            rename(path, replaced)
            rename(temporary, path)
        sync(path.parent)
    except BaseException:
        if replaced.exists() and not path.exists():
            os.rename(replaced, path)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        if path.exists():  # else what was replaced is the only copy
            shutil.rmtree(replaced, ignore_errors=True)


def hide(path: Path) -> Path:
    """Give a folder that is to be removed a hidden name: what is half gone is not to be taken for whole."""
    hidden = path.with_name(f".{path.name}.removed")
    shutil.rmtree(hidden, ignore_errors=True)
    rename(path, hidden)
    return hidden


def check_writable(path: str | Path, suffix: str = "") -> None:
    """Raises InputError for a name that can't become a file, before any work is done for it."""
    path = Path(path)
    if suffix and path.suffix != suffix:
        raise InputError(f"{path}: the name ends in {suffix}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}")


def check_folder(path: str | Path) -> Path:
    """Raises InputError for a name that can't become a folder, before any work is done for it."""
    path = Path(path)
    if occupied := next(
        (each for each in (path, *path.parents) if each.exists() and not each.is_dir()), None
    ):
        raise InputError(f"{path}: {occupied} is a file")
    return path


class NpyWriter:
    """An array written into an .npy file piece by piece; the number of rows comes last.

    A file that holds `rows` of float32 of this shape already is gone on with at its end."""

    def __init__(self, file: BinaryIO, rows: int = 0, row_shape: tuple[int, ...] = (0,)):
        self.file, self.rows = file, rows
        self.dtype, self.row_shape = np.dtype(np.float32), row_shape  # of an array of no pieces

    def write(self, piece: np.ndarray) -> None:
        """Append rows (n, ...). Raises ValueError if they are not of the first piece's dtype and shape."""
        if self.file.tell() == 0:
            self.dtype, self.row_shape = piece.dtype, piece.shape[1:]
            self._header()
        if (piece.dtype, piece.shape[1:]) != (self.dtype, self.row_shape):
            raise ValueError(f"{piece.dtype} {piece.shape} after rows of {self.dtype} {self.row_shape}")
        self.rows += len(piece)
        self.file.write(piece.tobytes())

    def finish(self) -> None:
        """Write the number of rows. numpy leaves room for it, so the header keeps its length."""
        self.file.seek(0)
        self._header()
        self.file.seek(0, os.SEEK_END)

    def _header(self) -> None:
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.rows, *self.row_shape)}
        np.lib.format.write_array_header_1_0(self.file, header)


def _exchanged(first: Path, second: Path) -> bool:
    """Let two folders change names in one step; False where the system or the disk can't."""
    if sys.platform != "linux":
        return False
    call = getattr(ctypes.CDLL(None), "renameat2", None)
    if call is None:
        return False
    names = os.fsencode(first), os.fsencode(second)
    return call(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
