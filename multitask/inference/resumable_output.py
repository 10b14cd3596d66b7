"""Resumable output file: written to NAME.partial and renamed when complete."""

import json
import logging
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

import numpy as np

from multitask.common.array_cache import NpyWriter
from multitask.common.atomic_files import atomic_file, check_writable, lock, open_file, rename, sync
from multitask.common.checksums import sha256_of
from multitask.common.errors import InputError
from multitask.common.signals import StoppedBySignal
from multitask.data.texts import InputHash, Row
from multitask.inference.conversion import Convert

logger = logging.getLogger(__name__)

NOTE_SECONDS = 5  # between two notes of the progress: a kill -9 loses at most this much work
_NOTED = ("rows", "input", "sizes", "width", "finished", "facts")
_START_OVER = "without --resume it starts over"


class ResumableOutput(AbstractContextManager):
    """An Output that writes PATH.partial, and VECTORS.partial for embeddings; it renames them when complete,
    or converts PATH.partial to PATH.

    PATH.partial.json notes the progress, always after the rows are on the disk. A process that resumes cuts
    off everything written after that note. Therefore no row appears twice. At the end the note becomes
    .PATH.finished.json: it tells which texts and facts the files are made of.

    Args:
        path, vectors: the output file, and the .npy file for embeddings or None.
        facts: what the rows depend on besides their texts. A run with other facts can't resume.
        convert: writes the output file from the complete PATH.partial; None if they are the same.

    Raises InputError for a name that can't be written."""

    def __init__(self, path: str, vectors: str | None, facts: dict[str, Any], convert: Convert | None = None):
        check_writable(path)
        if vectors:
            check_writable(vectors, ".npy")
        self.facts, self.convert, self.input, self.noted_at = facts, convert, InputHash(), monotonic()
        self.targets = [Path(name) for name in (path, vectors) if name]
        self.partials = [target.with_name(f"{target.name}.partial") for target in self.targets]
        self.converted = self.partials[0].with_name(f"{self.partials[0].name}.converted")
        self.note = self.partials[0].with_name(f"{self.partials[0].name}.json")
        self.finished = self.note.with_name(f".{self.targets[0].name}.finished.json")
        self.written = [*self.targets, *self.partials, self.converted, self.note, self.finished]
        self.head: bytes | None = None  # to write first; None if the files have rows already
        self.is_new = False  # whether the note is of this process, and no row followed
        self.files: list[BinaryIO] = []
        self.vectors: NpyWriter | None = None
        self.lock = ExitStack()  # closed to unlock

    def begin(self, head: bytes) -> None:
        """Start from the first row; `head` is the header of the file format.

        Only notes that this run has begun, so that a kill before the first row is noticed. What an unfinished
        run has left is replaced later, on entering the context."""
        self._lock()
        self._begin(head)

    def _begin(self, head: bytes) -> None:
        self.head, self.is_new = head, not self.note.exists()
        if self.is_new:
            self._write_note()
        else:
            logger.warning(f"{self.partials[0]}: starts over; --resume would have continued it")

    def resume(self, head: bytes, rows: Iterator[Row]) -> bool:
        """Continue after the rows already written, which are consumed from `rows`; False if all are written.

        Raises InputError if they come from other texts or facts, or if they are missing."""
        self._lock()
        continues = False
        try:
            continues = self._continue(head, rows)
        finally:
            if not continues:
                self.lock.close()
        return continues

    def withdraw(self) -> None:
        """Undo `begin`, if the work failed before the context was entered."""
        if self.is_new:
            self.note.unlink(missing_ok=True)
        self.lock.close()

    def _continue(self, head: bytes, rows: Iterator[Row]) -> bool:
        if not self.note.exists():
            if any(target.exists() for target in self.targets):
                self._check_finished(rows)
                return False
            logger.warning(f"{self.partials[0]}: there is nothing to resume; starts with the first row")
            self._begin(head)
            return True
        noted = self._read(self.note)
        self._check_origin(noted, rows, self.partials[0])
        if noted["finished"]:
            self._complete_files(noted)
            return False
        if not noted["rows"]:
            self.head = head
            return True
        self._cut_off(noted["sizes"])
        self._open("r+", noted["rows"], noted["width"])
        logger.info(f"{self.partials[0]}: resumes after {noted['rows']:,} rows")
        return True

    def _check_origin(self, noted: dict[str, Any], rows: Iterator[Row], file: Path) -> None:
        """Consume the rows that a note is about. Raises InputError if they or the facts are others."""
        if other := [name for name in self.facts if noted["facts"].get(name) != self.facts[name]]:
            raise InputError(f"{file}: was written with another {' and '.join(other)}; {_START_OVER}")
        count = noted["rows"]
        self.input.update(islice(rows, count))
        if self.input.rows == count and self.input.unreadable and noted["version"] == 1:
            logger.warning(f"{file}: written by an earlier version; the input must be the same")
        elif (self.input.rows, self.input.hexdigest()) != (count, noted["input"]):
            raise InputError(f"{file}: its {count:,} rows are not the first rows of the input; {_START_OVER}")
        if noted["finished"] and next(rows, None) is not None:
            raise InputError(f"{file}: has {count:,} rows, and the input has more; {_START_OVER}")

    def _check_finished(self, rows: Iterator[Row]) -> None:
        """Raises InputError unless the finished files are those of these rows and facts."""
        if not self.finished.exists():
            raise InputError(f"{self.targets[0]}: nothing tells what it was made of; {_START_OVER}")
        noted = self._read(self.finished)
        self._check_origin(noted, rows, self.targets[0])
        self._check_outputs(noted["outputs"], self.targets)

    def _cut_off(self, sizes: list[int]) -> None:
        """Cut off what was written after a note. Raises InputError if something before it is missing."""
        for partial, size in zip(self.partials, sizes):
            if not partial.is_file() or partial.stat().st_size < size:
                raise InputError(f"{partial}: is missing or cut off; {_START_OVER}")
            os.truncate(partial, size)

    def _check_outputs(self, checksums: list[str], files: list[Path]) -> None:
        for file, checksum in zip(files, checksums):
            if not file.is_file() or sha256_of(file) != checksum:
                raise InputError(f"{file}: is missing, or has changed since it was written; {_START_OVER}")

    def __enter__(self) -> "ResumableOutput":
        if self.head is not None:
            self._write_note()  # of no rows, before the old ones are cut off
            self._open("w")
            self.files[0].write(self.head)
            self._write_note()
        return self

    def write(self, rows: Iterable[Row], rendered: bytes, embeddings: np.ndarray | None) -> None:
        """Append rows, rendered to bytes, and their embeddings (n, D); None if there are none to write."""
        self.files[0].write(rendered)
        if self.vectors:
            assert embeddings is not None
            self.vectors.write(embeddings)
        self.input.update(rows)
        if monotonic() - self.noted_at > NOTE_SECONDS:
            self._write_note()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Complete the files if all rows are written; otherwise leave them in a state that can be resumed."""
        failed: BaseException | None = None
        with self.lock:
            if error is None:
                if self.vectors:
                    self.vectors.finish()
                self._write_note(finished=True)
            elif isinstance(error, StoppedBySignal):
                self._write_note()
            # after any other error half a row may follow the last note
            for file in self.files:
                with suppress(OSError):
                    file.close()
            if error is None:
                try:
                    self._complete_files(self._read(self.note))
                except (StoppedBySignal, OSError) as stopped:  # a conversion takes time and disk
                    error = failed = stopped
        hint = f"{self.partials[0]} holds the finished rows; add --resume to the same command to continue"
        if isinstance(error, StoppedBySignal):
            name = signal.Signals(error.number).name
            reason = f"stopped by {name} after {self.input.rows:,} rows; {hint}"
            raise StoppedBySignal(error.number, reason) from None
        if error is not None:
            logger.info(hint)
        if failed is not None:
            raise failed

    def _lock(self) -> None:
        self.lock.enter_context(lock(self.partials[0], "another process writes it"))

    def _open(self, mode: str, rows: int = 0, width: int = 0) -> None:
        self.files = [open_file(partial, mode) for partial in self.partials]
        for file in self.files:
            file.seek(0, os.SEEK_END)
        if len(self.files) > 1:
            self.vectors = NpyWriter(self.files[1], rows, (width,))

    def _write_note(self, finished: bool = False) -> None:
        for file, partial in zip(self.files, self.partials):
            file.flush()
            sync(partial)
        sizes, width = [file.tell() for file in self.files], self.vectors.row_shape[0] if self.vectors else 0
        values = self.input.rows, self.input.hexdigest(), sizes, width, finished, self.facts
        self._save({"version": 2, **dict(zip(_NOTED, values))})
        self.noted_at = monotonic()

    def _save(self, noted: dict[str, Any]) -> None:
        with atomic_file(self.note) as file:
            file.write(json.dumps(noted).encode())

    def _read(self, note: Path) -> dict[str, Any]:
        try:
            noted = {"version": 1, "outputs": None, **json.loads(note.read_bytes())}
            return {key: noted[key] for key in ("version", "outputs", *_NOTED)}
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{note}: is damaged; {_START_OVER}") from None

    def _complete_files(self, noted: dict[str, Any]) -> None:
        """Give the complete files their names. A process that was killed in between may have done a part."""
        if noted["outputs"]:
            self._check_outputs(noted["outputs"], self._complete())
        else:
            self._cut_off(noted["sizes"])
            if self.convert:
                with open_file(self.converted, "w") as file:
                    self.convert(self.partials[0], file)
                sync(self.converted)
            self._save({**noted, "outputs": list(map(sha256_of, self._complete()))})
        for complete, target in zip(self._complete(), self.targets):
            if complete != target:
                rename(complete, target)
        sync(self.targets[0].parent)
        self.partials[0].unlink(missing_ok=True)  # what was converted
        rename(self.note, self.finished)
        sync(self.finished.parent)

    def _complete(self) -> list[Path]:
        """Where the complete files are now."""
        files = [self.converted if self.convert else self.partials[0], *self.partials[1:]]
        return [file if file.exists() else target for file, target in zip(files, self.targets)]
