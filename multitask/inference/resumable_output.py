"""Resumable output file: written to NAME.partial and renamed when complete."""

import hashlib
import json
import logging
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from multitask.common.atomic_files import (
    NpyWriter,
    atomic_file,
    check_writable,
    lock,
    open_file,
    rename,
    sync,
)
from multitask.common.errors import InputError
from multitask.common.signals import StoppedBySignal
from multitask.data.texts import Row, UnreadableRow
from multitask.inference.conversion import Convert

logger = logging.getLogger(__name__)

NOTE_SECONDS = 5  # between two notes of the progress: a kill -9 loses at most this much work
_NOTED = ("rows", "input", "sizes", "width", "finished", "facts")
_START_OVER = "without --resume it starts over"


class ResumableOutput(AbstractContextManager):
    """An Output that writes PATH.partial, and VECTORS.partial for embeddings; it renames them when complete,
    or converts PATH.partial to PATH.

    PATH.partial.json notes the progress, always after the rows are on the disk. A process that resumes cuts
    off everything written after that note. Therefore no row appears twice.

    Args:
        path, vectors: the output file, and the .npy file for embeddings or None.
        facts: what the rows depend on besides their texts. A run with other facts can't resume.
        convert: writes the output file from the complete PATH.partial; None if they are the same.

    Raises InputError for a name that can't be written."""

    def __init__(self, path: str, vectors: str | None, facts: dict[str, Any], convert: Convert | None = None):
        check_writable(path)
        if vectors:
            check_writable(vectors, ".npy")
        self.facts, self.convert, self.input = facts, convert, InputHash()
        self.targets = [Path(name) for name in (path, vectors) if name]
        self.partials = [target.with_name(f"{target.name}.partial") for target in self.targets]
        self.note = self.partials[0].with_name(f"{self.partials[0].name}.json")
        self.vectors: NpyWriter | None = None
        self.lock = ExitStack()  # closed to unlock

    def begin(self, head: bytes) -> None:
        """Start from the first row; `head` is the header of the file format."""
        self.partials[0].touch()
        self._lock()
        if self.note.exists():
            logger.warning(f"{self.partials[0]}: starts over; --resume would have continued it")
        self.note.unlink(missing_ok=True)
        self._open("w")
        self.files[0].write(head)
        self._write_note()

    def resume(self, head: bytes, rows: Iterator[Row]) -> bool:
        """Continue after the rows already written, which are consumed from `rows`; False if all are written.

        Raises InputError if they come from other texts or facts, or if they are missing."""
        if not self.note.exists():
            if all(target.exists() for target in self.targets):
                return False
            logger.warning(f"{self.partials[0]}: there is nothing to resume; starts with the first row")
            self.begin(head)
            return True
        if self.partials[0].exists():
            self._lock()
        continues = False
        try:
            continues = self._continue(self._read_note(), rows)
        finally:
            if not continues:
                self.lock.close()
        return continues

    def _continue(self, noted: dict[str, Any], rows: Iterator[Row]) -> bool:
        if noted["finished"]:
            self._complete_files()
            return False
        if other := [name for name in self.facts if noted["facts"].get(name) != self.facts[name]]:
            names = " and ".join(other)
            raise InputError(f"{self.partials[0]}: was written with another {names}; {_START_OVER}")
        self.input.update(islice(rows, noted["rows"]))
        if self.input.rows == noted["rows"] and self.input.unreadable and noted["version"] == 1:
            logger.warning(f"{self.partials[0]}: written by an earlier version; the input must be the same")
        elif (self.input.rows, self.input.hexdigest()) != (noted["rows"], noted["input"]):
            raise InputError(
                f"{self.partials[0]}: its {noted['rows']:,} rows are not the first rows of the input; "
                f"{_START_OVER}"
            )
        for partial, size in zip(self.partials, noted["sizes"]):
            if not partial.is_file() or partial.stat().st_size < size:
                raise InputError(f"{partial}: is missing or cut off; {_START_OVER}")
            os.truncate(partial, size)
        self._open("r+", noted["rows"], noted["width"])
        logger.info(f"{self.partials[0]}: resumes after {noted['rows']:,} rows")
        return True

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
                    self._complete_files()
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
        self.lock.enter_context(os.fdopen(lock(self.partials[0], "another process writes it")))

    def _open(self, mode: str, rows: int = 0, width: int = 0) -> None:
        self.files = [open_file(partial, mode) for partial in self.partials]
        for file in self.files:
            file.seek(0, os.SEEK_END)
        if len(self.files) > 1:
            self.vectors = NpyWriter(self.files[1], rows, (width,))
        self.noted_at = monotonic()

    def _write_note(self, finished: bool = False) -> None:
        for file, partial in zip(self.files, self.partials):
            file.flush()
            sync(partial)
        sizes, width = [file.tell() for file in self.files], self.vectors.row_shape[0] if self.vectors else 0
        values = (self.input.rows, self.input.hexdigest(), sizes, width, finished, self.facts)
        noted = {"version": 2, **dict(zip(_NOTED, values))}
        with atomic_file(self.note) as file:
            file.write(json.dumps(noted).encode())
        self.noted_at = monotonic()

    def _read_note(self) -> dict[str, Any]:
        try:
            noted = {"version": 1, **json.loads(self.note.read_bytes())}
            return {key: noted[key] for key in ("version", *_NOTED)}
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{self.note}: is damaged; {_START_OVER}") from None

    def _complete_files(self) -> None:
        converted = self.partials[0].with_name(f"{self.partials[0].name}.converted")
        for partial, target in zip(self.partials, self.targets):
            if not partial.exists():  # a process that was killed may have renamed it already
                continue
            if self.convert and target is self.targets[0]:
                with open_file(converted, "w") as file:
                    self.convert(partial, file)
                sync(converted)
                rename(converted, target)
                sync(target.parent)
                partial.unlink()
            else:
                rename(partial, target)
        sync(self.targets[0].parent)
        self.note.unlink()


class InputHash:
    """A hash over all texts and words to predict, in order, and the number of rows.

    It does not depend on the reason why a row can't be read: a later version may word the reason differently.
    Notes of version 1 hold a hash over the reasons too."""

    def __init__(self) -> None:
        self.rows, self.unreadable, self._hash = 0, 0, hashlib.blake2b(digest_size=16)

    def update(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.rows += 1
            self.unreadable += isinstance(row, UnreadableRow)
            parts = None if isinstance(row, UnreadableRow) else [row.text, *row.words]
            self._hash.update(json.dumps(parts).encode())

    def hexdigest(self) -> str:
        return self._hash.hexdigest()
