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
        os.chmod(temporary, 0o777 & ~_umask())
        if path.exists():
            os.rename(path, replaced)
        os.rename(temporary, path)
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
    """A float32 array (rows, D) written into an .npy file piece by piece; the number of rows comes last."""

    def __init__(self, file: BinaryIO):
        self.file, self.rows, self.width = file, 0, 0

    def write(self, piece: np.ndarray) -> None:
        """Append rows (n, D)."""
        if self.rows == 0:
            self.width = piece.shape[1]
            self._header()
        self.rows += len(piece)
        self.file.write(np.ascontiguousarray(piece, np.float32).tobytes())

    def finish(self) -> None:
        """Write the number of rows. numpy leaves room for it, so the header keeps its length."""
        self.file.seek(0)
        self._header()
        self.file.seek(0, os.SEEK_END)

    def _header(self) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.rows, self.width)}
        np.lib.format.write_array_header_1_0(self.file, header)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
