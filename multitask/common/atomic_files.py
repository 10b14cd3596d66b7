"""Atomic files and folders: complete or absent, even after a kill or on a full disk."""

import ctypes
import errno
import io
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from multitask.common.errors import InputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

logger = logging.getLogger(__name__)

_BUFFER = 1 << 20  # bytes
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux's renameat2
_WINDOWS = os.name == "nt"
_WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}  # of some network disks


def disk(kind: str, path: Path, call: Callable, *arguments: Any) -> Any:
    """Call a function that changes the disk; `kind` is "write", "sync", "link" or "rename".

    Every change goes through here: tests count the calls, and simulate a crash at any of them. An OSError
    gets the path as its filename, which is missing after a write to a full disk."""
    try:
        return call(*arguments)
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


class _RawFile(io.FileIO):
    """A file whose writes go through `disk`."""

    def __init__(self, path: Path, mode: str):
        super().__init__(path, mode)
        self.path = path

    def write(self, data: "ReadableBuffer") -> int:
        return disk("write", self.path, super().write, data)


def open_file(path: Path, mode: str = "x") -> BinaryIO:
    """A binary file to create ("x"), append to ("a"), replace ("w") or change ("r+").

    Call `sync` after closing it, to be sure that it is on the disk."""
    return io.BufferedWriter(_RawFile(path, mode), _BUFFER)


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's list of names, are on the disk.

    Without it, a rename may reach the disk before the content of the renamed file. Windows can't sync a
    folder, and syncs a file only where it may write."""
    if _WINDOWS and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if _WINDOWS else os.O_RDONLY)
    try:
        disk("sync", path, os.fsync, handle)
    finally:
        os.close(handle)


def rename(source: Path, target: Path) -> None:
    """Rename a file or folder, replacing a file of that name."""
    disk("rename", target, os.replace, source, target)


def link(source: Path, target: Path) -> None:
    """Make a hard link to a file, or a copy if the disk has no hard links."""
    try:
        disk("link", target, os.link, source, target)
    except OSError:
        with open(source, "rb") as content, open_file(target) as file:
            shutil.copyfileobj(content, file, _BUFFER)


def lock(path: Path, otherwise: str) -> ExitStack:
    """Lock a folder, or a file that need not exist → what unlocks it when closed; so does the process's end.

    The lock is a file of its own: Windows can't lock a folder, and there a locked file can't be written. It
    is removed with the lock, but stays after a kill and may then be deleted. Raises InputError with the words
    `otherwise` if another process holds the lock."""
    from filelock import FileLock, Timeout

    file, unlock = lock_file(path), ExitStack()
    held = FileLock(file, timeout=0)
    try:
        held.acquire()
    except Timeout:
        raise InputError(f"{path}: {otherwise}") from None
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        logger.warning(f"{path}: can't be locked ({error.strerror}): make sure no other process writes to it")
        return unlock
    unlock.callback(held.release)
    unlock.callback(_remove_if_possible, file)  # before the release: nobody else's lock is removed
    return unlock


def lock_file(path: Path) -> Path:
    """The file that is locked in place of a folder or file."""
    return path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")


def _remove_if_possible(path: Path) -> None:
    with suppress(OSError):  # Windows can't remove an open file
        path.unlink()


def append(path: Path, data: bytes) -> None:
    """Append to a file and wait until the bytes are on the disk."""
    with open_file(path, "a") as file:
        file.write(data)
    sync(path)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Context of a temporary file that is renamed to `path` at the end; after an error it is deleted.

    Raises InputError if `path` is a folder or lies in none."""
    path = Path(path)
    check_writable(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with open_file(temporary, "w") as file:
            yield file
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes it 0600
        sync(temporary)
        rename(temporary, path)
        sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Context of a temporary folder to fill, which replaces `path` at the end; after an error `path` stays.

    Close its files before the end. On Linux `path` exists at every moment; elsewhere the old folder has
    another name for a moment, and keeps it if the process is killed then."""
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
        elif disk("rename", path, exchange_folders, temporary, path):
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
        if path.exists():  # else the replaced folder is the only copy
            shutil.rmtree(replaced, ignore_errors=True)


def hide(path: Path) -> Path:
    """Give a folder a hidden name before it is deleted: a half-deleted folder must not look complete."""
    hidden = path.with_name(f".{path.name}.removed")
    shutil.rmtree(hidden, ignore_errors=True)
    rename(path, hidden)
    return hidden


def check_writable(path: str | Path, suffix: str = "") -> None:
    """Check early that a file can be written: raises InputError for a wrong suffix, a folder or a missing
    parent folder."""
    path = Path(path)
    if suffix and path.suffix != suffix:
        raise InputError(f"{path}: the name ends in {suffix}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}")


def check_folder(path: str | Path) -> Path:
    """Check early that a folder can be made → its path. Raises InputError if a part of the path is a file."""
    path = Path(path)
    for part in (path, *path.parents):
        if part.exists() and not part.is_dir():
            raise InputError(f"{path}: {part} is a file")
    return path


def exchange_folders(first: Path, second: Path) -> bool:
    """Exchange the names of two folders in one atomic step; False if the system or the disk can't."""
    if sys.platform != "linux":
        return False
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    names = os.fsencode(first), os.fsencode(second)
    return renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
