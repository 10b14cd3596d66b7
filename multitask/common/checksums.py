"""Folders with a list of SHA-256 checksums, which show damage before a file is used.

Files may lie in subfolders, "1_Pooling/config.json", but no deeper."""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from multitask.common.atomic_files import atomic_folder, link, open_file

CHECKSUMS = "SHA256SUMS"  # in the format of sha256sum; written last
_LINE = re.compile(r"([0-9a-f]{64})  ((?:[\w-][\w.-]*/)?[\w-][\w.-]*)")

Buffer = bytes | memoryview
T = TypeVar("T")


class ChecksumError(ValueError):
    """A folder is damaged. The message names the file."""


def write_with_checksums(path: Path, files: Iterable[tuple[str, Iterable[Buffer]]]) -> dict[str, str]:
    """Write a folder of (name, pieces of content) atomically, or replace it → each file's SHA-256.

    The pieces are not copied. Threads hash a file while the next ones are written: on a good disk hashing
    takes longer than writing, and both release the GIL."""
    with atomic_folder(path) as folder, ThreadPoolExecutor(2) as hashing:
        hashes = {}
        for name, content in files:
            pieces = []
            (folder / name).parent.mkdir(exist_ok=True)
            with open_file(folder / name) as file:
                for piece in content:
                    file.write(piece)
                    pieces.append(piece)
            hashes[name] = hashing.submit(_sha256, pieces)
        checksums = {name: future.result() for name, future in hashes.items()}
        _write_checksums(folder, checksums)
    return checksums


def update_with_checksums(path: Path, files: Mapping[str, bytes]) -> None:
    """Replace or add files of a folder atomically. Hard links keep the others, which are not read: damage in
    them stays, and their checksums still show it.

    Raises ChecksumError if the folder has no valid list of checksums."""
    checksums = _read_checksums(path)
    with atomic_folder(path) as folder:
        for name in checksums:
            if name not in files:
                (folder / name).parent.mkdir(exist_ok=True)
                link(path / name, folder / name)
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            with open_file(folder / name) as file:
                file.write(content)
        _write_checksums(folder, checksums | {name: _sha256([content]) for name, content in files.items()})


def read_verified(path: Path) -> dict[str, bytes]:
    """The content of each file of a folder, verified.

    Raises ChecksumError for a file that is missing, changed, a link or not listed."""
    checksums = _read_checksums(path)
    known = {CHECKSUMS, *checksums, *(name.split("/")[0] for name in checksums)}
    for file in sorted(path.rglob("*")):
        if (name := file.relative_to(path).as_posix()) not in known:
            raise ChecksumError(f"{name} does not belong to it")
        if file.is_symlink():
            raise ChecksumError(f"{name} is a link")
    return {
        name: _check(path, name, expected, Path.read_bytes, lambda content: _sha256([content]))
        for name, expected in checksums.items()
    }


def verify_checksums(path: Path, free: Collection[str] = ()) -> dict[str, str]:
    """Verify the listed files of a folder → their SHA-256. Files that are not listed are ignored.

    Raises ChecksumError if a file is missing or changed. Those named in `free` may be."""
    checksums = _read_checksums(path)
    for name, expected in checksums.items():
        if name not in free:
            _check(path, name, expected, sha256_of, str)
    return checksums


def _write_checksums(folder: Path, checksums: dict[str, str]) -> None:
    with open_file(folder / CHECKSUMS) as file:
        file.write("".join(f"{checksum}  {name}\n" for name, checksum in checksums.items()).encode())


def _sha256(pieces: Iterable[Buffer]) -> str:
    sha256 = hashlib.sha256()
    for piece in pieces:
        sha256.update(piece)
    return sha256.hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_hash(path: Path) -> str:
    """A SHA-256 that identifies a folder's content: of its list of checksums, or else of its files."""
    if (path / CHECKSUMS).is_file():
        return sha256_of(path / CHECKSUMS)
    files = sorted(file for file in path.iterdir() if file.is_file())
    return _sha256(f"{file.name} {sha256_of(file)}".encode() for file in files)


def _read_checksums(path: Path) -> dict[str, str]:
    if (path / CHECKSUMS).is_symlink():
        raise ChecksumError(f"{CHECKSUMS} is a link")
    try:
        text = (path / CHECKSUMS).read_text(encoding="ascii")
    except FileNotFoundError:
        raise ChecksumError(f"no {CHECKSUMS} in it") from None
    except (OSError, ValueError):
        raise ChecksumError(f"{CHECKSUMS} can't be read") from None
    lines = [_LINE.fullmatch(line) for line in text.removesuffix("\n").split("\n")]
    checksums = {line[2]: line[1] for line in lines if line}
    if not text.endswith("\n") or len(checksums) < len(lines):  # a bad line, or a name twice
        raise ChecksumError(f"{CHECKSUMS} is no list of checksums")
    return checksums


def _check(path: Path, name: str, expected: str, read: Callable[[Path], T], sha256: Callable[[T], str]) -> T:
    """Read a file of a folder and compare its checksum → what `read` returns."""
    try:
        content = read(path / name)
    except FileNotFoundError:
        raise ChecksumError(f"{name} is missing") from None
    except OSError as error:
        raise ChecksumError(f"{name}: {(error.strerror or str(error)).lower()}") from None
    if sha256(content) != expected:
        raise ChecksumError(f"{name} is not what was written")
    return content
