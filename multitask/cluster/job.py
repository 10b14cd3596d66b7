"""The folder of a job: which shards it is made of, and which of them are finished."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from multitask.cluster.shards import Shard, SplitFile, number_shards
from multitask.common.atomic_files import atomic_file, check_folder, lock
from multitask.common.errors import InputError

JOB = "_job.json"  # readers of a folder of Parquet files leave out such names
_VERSION = 1
_METADATA = b"multitask.shard"  # a key of a shard's Parquet metadata
_OTHER = "give another --output, or remove this folder to start over"


class Done(NamedTuple):
    """A finished shard: its rows, and how many of them could not be read."""

    number: int
    rows: int
    unreadable: int


class Job:
    """A folder of one Parquet file per shard, and _job.json: what they are made of.

    A file appears when all rows of its shard are written and on the disk. Its metadata name the job and the
    shard; a file that says otherwise, or has another number of rows, is not taken for finished.

    Args:
        folder: made if it is missing.
        files: the input, split.
        facts: what the predictions depend on besides the input, by the name of the option."""

    def __init__(self, folder: str, files: Sequence[SplitFile], facts: dict[str, Any]):
        self.folder, self.shards = Path(folder), number_shards(list(files))
        self.files = [
            {"path": file.path, "sha256": file.sha256, "rows": sum(rows for _, rows in file.parts)}
            for file in files
        ]
        self.facts = {**facts, "input": _digest(self.files)}
        self.key = _digest([_VERSION, self.facts])
        self.rows = sum(shard.rows for shard in self.shards)

    def begin(self) -> list[Done]:
        """Write _job.json → the shards that an earlier start has finished.

        Raises InputError if the folder holds shards of another job, or anything else."""
        present = {path.name for path in self.folder.iterdir()} if self.folder.exists() else set()
        ours = {self.path_of(shard.number).name for shard in self.shards}
        shown = {name for name in present if not name.startswith(".")} - {JOB}
        if shown and JOB not in present:
            raise InputError(f"{self.folder}: holds other files ({min(shown)}); give another --output")
        noted = self._read() if JOB in present and shown else None
        if noted and noted["key"] != self.key:
            differ = [name for name in self.facts if noted["facts"].get(name) != self.facts[name]]
            other = " and ".join(differ) or "version"
            raise InputError(f"{self.folder}: holds shards of another job (another {other}); {_OTHER}")
        if shown - ours:
            raise InputError(f"{self.folder}: holds a file of no shard ({min(shown - ours)}); {_OTHER}")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.leave(any_finished=True)  # of workers that were killed
        self._write(finished=None)
        return [done for shard in self.shards if (done := self.finished(shard))]

    def lock(self) -> AbstractContextManager:
        """Context in which no other process works on the folder. Raises InputError if one does."""
        check_folder(self.folder)
        made = not self.folder.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        return _Locked(self.folder, made)

    def path_of(self, number: int) -> Path:
        """The file of a shard; the names of all shards sort in the order of the input."""
        return self.folder / shard_name(number, len(self.shards))

    def finished(self, shard: Shard) -> Done | None:
        """What a shard's file says, if it is complete and of this job."""
        import pyarrow
        import pyarrow.parquet as pq

        with suppress(FileNotFoundError, pyarrow.ArrowException, ValueError, KeyError, TypeError):
            footer = pq.read_metadata(self.path_of(shard.number))
            said = json.loads((footer.metadata or {})[_METADATA])
            if (said["job"], said["shard"], footer.num_rows) == (self.key, shard.number, shard.rows):
                return Done(shard.number, shard.rows, said["unreadable"])
        return None

    def finish(self, done: Sequence[Done]) -> int:
        """Note that all rows are written → how many of them could not be read.

        Raises RuntimeError if a shard is missing or given twice: no row may be lost or doubled silently."""
        if sorted(one.number for one in done) != list(range(len(self.shards))):
            raise RuntimeError(f"{self.folder}: {len(done)} of {len(self.shards)} shards were reported")
        if (rows := sum(one.rows for one in done)) != self.rows:
            raise RuntimeError(f"{self.folder}: has {rows:,} rows, and the input {self.rows:,}")
        unreadable = sum(one.unreadable for one in done)
        self._write(finished={"rows": rows, "unreadable": unreadable})
        return unreadable

    def leave(self, any_finished: bool) -> None:
        """Remove files that were never completed, and _job.json too if no shard is finished."""
        for pattern in (".part-*", f".{JOB}.*"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)
        if not any_finished:
            (self.folder / JOB).unlink(missing_ok=True)

    def _write(self, finished: dict | None) -> None:
        counts = {"shards": len(self.shards), "rows": self.rows, "finished": finished, "files": self.files}
        with atomic_file(self.folder / JOB) as file:
            noted = {"version": _VERSION, "key": self.key, "facts": self.facts, **counts}
            file.write(json.dumps(noted, indent=1).encode() + b"\n")

    def _read(self) -> dict[str, Any]:
        try:
            noted = json.loads((self.folder / JOB).read_bytes())
            return {"key": noted["key"], "facts": dict(noted["facts"])}
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{self.folder / JOB}: is damaged; {_OTHER}") from None


class _Locked(AbstractContextManager):
    def __init__(self, folder: Path, made: bool):
        self.folder, self.made = folder, made
        self.unlock = lock(folder, "another process writes into it")

    def __exit__(self, *error: object) -> None:
        self.unlock.close()
        if self.made:
            with suppress(OSError):  # it holds something by now
                self.folder.rmdir()


def shard_name(number: int, count: int) -> str:
    """The name of a shard's file among those of `count` shards."""
    return f"part-{number:0{max(5, len(str(count - 1)))}}.parquet"


def metadata_of(job: str, done: Done) -> dict[bytes, bytes]:
    """The metadata that a shard's file gets."""
    said = {"job": job, "shard": done.number, "unreadable": done.unreadable}
    return {_METADATA: json.dumps(said).encode()}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
