"""A file of predictions that grows, can be gone on with when interrupted, and has its name when whole."""

import hashlib
import json
import logging
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any, TextIO

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

logger = logging.getLogger(__name__)

_SECONDS = 5  # between two notes of how far it is: what a kill -9 can cost
_ANEW = "without --resume it is started anew"


class ResumableOutput:
    """PATH.partial, and VECTORS.partial where there are embeddings, until all rows are in them.

    PATH.partial.json notes how far they are, once that is on the disk; what is behind it when another process
    goes on is cut off, so that no row is written twice. `facts` are what the rows depend on besides their
    texts. Raises InputError for names that can't become files."""

    def __init__(self, path: str, vectors: str | None, facts: dict[str, Any]):
        check_writable(path)
        if vectors:
            check_writable(vectors, ".npy")
        self.facts, self.input = facts, InputHash()
        self.targets = [Path(name) for name in (path, vectors) if name]
        self.partials = [target.with_name(f"{target.name}.partial") for target in self.targets]
        self.note = self.partials[0].with_name(f"{self.partials[0].name}.json")
        self.vectors: NpyWriter | None = None
        self.locked: TextIO | None = None

    def begin(self, head: bytes) -> None:
        """Start anew, with what a file of the format begins with."""
        self.partials[0].touch()
        self._lock()
        if self.note.exists():
            logger.warning(f"{self.partials[0]}: started anew; --resume would have gone on with it")
        self.note.unlink(missing_ok=True)
        self._open("w")
        self.files[0].write(head)
        self._keep()

    def resume(self, head: bytes, rows: Iterator[Row]) -> bool:
        """Go on behind the rows that are there, which are taken off `rows`; False where all is done.

        Raises InputError where they were written of other texts or with other facts, or are not there."""
        if not self.note.exists():
            if all(target.exists() for target in self.targets):
                return False
            logger.warning(f"{self.partials[0]}: nothing is there to go on with; starting")
            self.begin(head)
            return True
        if self.partials[0].exists():
            self._lock()
        try:
            going_on = self._go_on(self._noted(), rows)
        except BaseException:
            self._unlock()
            raise
        if not going_on:
            self._unlock()
        return going_on

    def _go_on(self, noted: dict, rows: Iterator[Row]) -> bool:
        if noted["finished"]:
            self._give_names()
            return False
        if other := [name for name in self.facts if noted["facts"].get(name) != self.facts[name]]:
            raise InputError(f"{self.partials[0]}: is of another {' and '.join(other)}; {_ANEW}")
        self.input.update(islice(rows, noted["rows"]))
        if (self.input.rows, self.input.hexdigest()) != (noted["rows"], noted["input"]):
            raise InputError(
                f"{self.partials[0]}: its {noted['rows']:,} rows are not of the texts that the input begins "
                f"with; {_ANEW}"
            )
        for partial, size in zip(self.partials, noted["sizes"]):
            if not partial.is_file() or partial.stat().st_size < size:
                raise InputError(f"{partial}: is not all there any more; {_ANEW}")
            os.truncate(partial, size)
        self._open("r+", noted["rows"], noted["width"])
        logger.info(f"{self.partials[0]}: going on after {noted['rows']:,} rows")
        return True

    def write(self, rows: Iterable[Row], answers: bytes, embeddings: np.ndarray | None) -> None:
        """Append rows: what is written of them, and their embeddings (n, D) where they are wanted."""
        self.files[0].write(answers)
        if self.vectors:
            self.vectors.write(embeddings)
        self.input.update(rows)
        if monotonic() - self.kept_at > _SECONDS:
            self._keep()

    def __enter__(self) -> "ResumableOutput":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, _) -> None:
        """With all rows written the files get their names; else another process can go on."""
        if kind is None:
            if self.vectors:
                self.vectors.finish()
            self._keep(finished=True)
        elif isinstance(error, StoppedBySignal):
            self._keep()
        # after any other error what is behind the last note may be half a row
        for file in self.files:
            with suppress(OSError):
                file.close()
        if kind is None:
            self._give_names()
        self._unlock()
        if kind is not None:
            self._say_how_to_go_on(error)

    def _say_how_to_go_on(self, error: BaseException) -> None:
        state = f"{self.partials[0]} holds what is done; the same command with --resume goes on"
        if isinstance(error, StoppedBySignal):
            name = signal.Signals(error.number).name
            raise StoppedBySignal(
                error.number, f"stopped by {name} after {self.input.rows:,} rows; {state}"
            ) from None
        logger.info(state)

    def _lock(self) -> None:
        self.locked = os.fdopen(lock(self.partials[0], "another process writes it"))

    def _unlock(self) -> None:
        if self.locked:
            self.locked.close()

    def _open(self, mode: str, rows: int = 0, width: int = 0) -> None:
        self.files = [open_file(partial, mode) for partial in self.partials]
        for file in self.files:
            file.seek(0, os.SEEK_END)
        if len(self.files) > 1:
            self.vectors = NpyWriter(self.files[1], rows, (width,))
        self.kept_at = monotonic()

    def _keep(self, finished: bool = False) -> None:
        for file, partial in zip(self.files, self.partials):
            file.flush()
            sync(partial)
        noted = {
            "rows": self.input.rows,
            "input": self.input.hexdigest(),
            "sizes": [file.tell() for file in self.files],
            "width": self.vectors.row_shape[0] if self.vectors else 0,
            "finished": finished,
            "facts": self.facts,
        }
        with atomic_file(self.note) as file:
            file.write(json.dumps(noted).encode())
        self.kept_at = monotonic()

    def _noted(self) -> dict:
        try:
            noted = json.loads(self.note.read_bytes())
            return {key: noted[key] for key in ("rows", "input", "sizes", "width", "finished", "facts")}
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{self.note}: is not what was written; {_ANEW}") from None

    def _give_names(self) -> None:
        for partial, target in zip(self.partials, self.targets):
            if partial.exists():  # else it was done before a process was killed
                rename(partial, target)
        sync(self.targets[0].parent)
        self.note.unlink()


class InputHash:
    """A hash over rows, in order, of all that is predicted of."""

    def __init__(self):
        self.rows, self._hash = 0, hashlib.blake2b(digest_size=16)

    def update(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.rows += 1
            parts = [row.reason] if isinstance(row, UnreadableRow) else [row.text, *row.words]
            self._hash.update(json.dumps(parts).encode())

    def hexdigest(self) -> str:
        return self._hash.hexdigest()
