"""Files that are there whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from multitask.errors import InputError


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """A file that takes its name when the block ends without an error, and else leaves nothing.

    Raises InputError if its folder is missing or it is itself a folder."""
    path = Path(path)
    check_writable(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(handle)
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's 0600 is for secrets
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A folder to fill, which replaces `path` if the block ends without an error; else `path` stays."""
    path = Path(path)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    replaced = temporary.with_name(f"{temporary.name}.replaced")
    try:
        yield temporary
        for file in temporary.rglob("*"):
            os.chmod(file, (0o777 if file.is_dir() else 0o666) & ~_umask())
            _sync(file)
        os.chmod(temporary, 0o777 & ~_umask())
        if path.exists():
            os.rename(path, replaced)
        _sync(temporary)
        os.rename(temporary, path)
        _sync(path.parent)
    except BaseException:
        if replaced.exists() and not path.exists():
            os.rename(replaced, path)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        if path.exists():  # else what was replaced is the only copy
            shutil.rmtree(replaced, ignore_errors=True)


def check_writable(path: str | Path, suffix: str = "") -> None:
    """Raises InputError for a name that can't become a file, before any work is done for it."""
    path = Path(path)
    if suffix and path.suffix != suffix:
        raise InputError(f"{path}: the name ends in {suffix}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}")


class NpyWriter:
    """An array written into an .npy file piece by piece; the number of rows comes last."""

    def __init__(self, file: BinaryIO):
        self.file, self.rows = file, 0
        self.dtype, self.row_shape = np.dtype(np.float32), (0,)  # of an array of no pieces

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


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk: a rename may get there before it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
