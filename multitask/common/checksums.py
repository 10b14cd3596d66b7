"""Folders of files with the SHA-256 of each, written last: what is damaged is seen before it is used.

A file may lie in a folder of its own there, "1_Pooling/config.json", and no deeper."""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from multitask.common.atomic_files import atomic_folder, link, open_file

CHECKSUMS = "SHA256SUMS"  # as sha256sum writes and checks it
_LINE = re.compile(r"([0-9a-f]{64})  ((?:[\w-][\w.-]*/)?[\w-][\w.-]*)")

Buffer = bytes | memoryview


class ChecksumError(ValueError):
    """A folder is not what was written. The message names the file."""


def write_with_checksums(path: Path, files: Iterable[tuple[str, Iterable[Buffer]]]) -> dict[str, str]:
    """Make a folder of (name, pieces of its content), or replace it, all or nothing → each file's SHA-256.

    The pieces are not copied. A file is hashed while the next ones are written: on a good disk hashing takes
    longer than writing, and both leave the interpreter's lock."""
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
        sums = {name: found.result() for name, found in hashes.items()}
        _write_sums(folder, sums)
    return sums


def update_with_checksums(path: Path, files: Mapping[str, bytes]) -> None:
    """Replace or add files of a folder, all or nothing. The others are not read, and not copied where the
    disk can give a file two names: what was damaged of them still is, and their sums tell.

    Raises ChecksumError where the folder has no list of sums."""
    sums = _sums(path)
    with atomic_folder(path) as folder:
        for name in sums:
            if name not in files:
                (folder / name).parent.mkdir(exist_ok=True)
                link(path / name, folder / name)
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            with open_file(folder / name) as file:
                file.write(content)
        _write_sums(folder, {**sums, **{name: _sha256([content]) for name, content in files.items()}})


def read_verified(path: Path) -> dict[str, bytes]:
    """The files of a folder, verified.

    Raises ChecksumError for a file that is missing, changed, a link or not listed."""
    sums = _sums(path)
    known = {CHECKSUMS, *sums, *(name.split("/")[0] for name in sums)}
    for file in sorted(path.rglob("*")):
        if (name := file.relative_to(path).as_posix()) not in known:
            raise ChecksumError(f"{name} does not belong to it")
        if file.is_symlink():
            raise ChecksumError(f"{name} is a link")
    return {name: _content(path / name, wanted) for name, wanted in sums.items()}


def verify_checksums(path: Path, free: Collection[str] = ()) -> dict[str, str]:
    """The SHA-256 of each file that a folder's list names; other files may be there.

    Raises ChecksumError if one is not as it was written, but for those in `free`."""
    sums = _sums(path)
    for name, wanted in sums.items():
        if name in free:
            continue
        try:
            found = sha256_of(path / name)
        except OSError as error:
            raise ChecksumError(f"{name}: {(error.strerror or str(error)).lower()}") from None
        if found != wanted:
            raise ChecksumError(f"{name} is not what was written")
    return sums


def _write_sums(folder: Path, sums: dict[str, str]) -> None:
    with open_file(folder / CHECKSUMS) as file:
        file.write("".join(f"{found}  {name}\n" for name, found in sums.items()).encode())


def _sha256(pieces: Iterable[Buffer]) -> str:
    found = hashlib.sha256()
    for piece in pieces:
        found.update(piece)
    return found.hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_hash(path: Path) -> str:
    """A SHA-256 that is another one for a folder of other content: of its list of sums, where it has one."""
    if (path / CHECKSUMS).is_file():
        return sha256_of(path / CHECKSUMS)
    files = sorted(file for file in path.iterdir() if file.is_file())
    return _sha256(f"{file.name} {sha256_of(file)}".encode() for file in files)


def _sums(path: Path) -> dict[str, str]:
    if (path / CHECKSUMS).is_symlink():
        raise ChecksumError(f"{CHECKSUMS} is a link")
    try:
        text = (path / CHECKSUMS).read_text(encoding="ascii")
    except FileNotFoundError:
        raise ChecksumError(f"no {CHECKSUMS} in it") from None
    except (OSError, ValueError):
        raise ChecksumError(f"{CHECKSUMS} can't be read") from None
    lines = [_LINE.fullmatch(line) for line in text.removesuffix("\n").split("\n")]
    if not text.endswith("\n") or not all(lines) or len({line[2] for line in lines}) < len(lines):
        raise ChecksumError(f"{CHECKSUMS} is no list of sums")
    return {line[2]: line[1] for line in lines}


def _content(file: Path, wanted: str) -> bytes:
    if not file.is_file():
        raise ChecksumError(f"{file.name} is missing")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ChecksumError(f"{file.name}: {(error.strerror or str(error)).lower()}") from None
    if hashlib.sha256(content).hexdigest() != wanted:
        raise ChecksumError(f"{file.name} is not what was written")
    return content
