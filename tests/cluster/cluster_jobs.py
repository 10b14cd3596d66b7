"""Jobs for tests: a large input of a few rows, and what its output must be."""

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

TEXTS = [f"anna won vote {i} in paris" for i in range(23)]
SHARDS = 6  # of at most five rows


def write_input(folder: Path) -> None:
    """Two files of 25 rows in all; two of them can't be read."""
    folder.mkdir()
    rows = [json.dumps({"text": text, "label": "x"}) for text in TEXTS]
    (folder / "a.jsonl").write_text("\n".join([*rows[:7], "", "not json", *rows[7:12]]) + "\n")
    (folder / "b.jsonl").write_text("\n".join([*rows[12:], '{"no": "text"}']) + "\n")


def words(model: Path, *more: str, engine: str = "local") -> list[str]:
    """The command line that predicts the input in/ into out/."""
    options = ["--engine", engine, "--model", str(model), "--device", "cpu", "--shard-rows", "5"]
    return ["predict", "--input", "in", "--output", "out", *options, *more]


def rows_of(folder: str | Path) -> list[dict]:
    """All rows of an output folder, in the order of its files."""
    parts = sorted(Path(folder).glob("*.parquet"))
    return pa.concat_tables(map(pq.read_table, parts)).to_pylist()


def contents(folder: str | Path) -> dict[str, bytes]:
    """The bytes of each file in a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def as_json(rows: list[dict]) -> list[dict]:
    """Rows of an output folder as lines of JSON have them: without place, and without an empty `error`."""
    keys = ("text", "label", "probabilities", "entities", "error")
    plain = [{key: row[key] for key in keys} for row in rows]
    for row in plain:
        row["probabilities"] = row["probabilities"] and dict(row["probabilities"])
        if row["error"] is None:
            del row["error"]
    return plain


def run_here(arguments: list[str]) -> None:
    """Run task_5.py in this process, as a script does."""
    import task_5
    from multitask.common.shell import run_script

    sys.argv = ["task_5.py", *arguments]
    run_script(task_5.main)


def almost(value):
    """A JSON value in which numbers also equal those that other batches give."""
    if isinstance(value, dict):
        return {key: almost(item) for key, item in value.items()}
    if isinstance(value, list):
        return [*map(almost, value)]
    return pytest.approx(value, abs=1e-5) if isinstance(value, float) else value
