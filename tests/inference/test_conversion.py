"""Converted outputs hold the rows of the JSON Lines that they are made from, whatever their number."""

import json

import pyarrow.parquet as pq
import pytest

from multitask.common.errors import InputError
from multitask.inference import conversion
from multitask.inference.conversion import write_json_array, write_parquet
from multitask.inference.writers import output_format

ENTITY = {"start": 0, "end": 3, "text": "Ada", "label": "PER", "score": 0.875}
ROWS = [
    {"text": "Ada won\n🙂", "label": "x", "probabilities": {"x": 0.75, "b c": 0.25}, "entities": [ENTITY]},
    {"text": "", "label": None, "probabilities": None, "entities": []},
    {"text": None, "label": None, "probabilities": None, "entities": None, "error": "a.txt:3: not UTF-8"},
    {"text": "no class was learned", "label": None, "probabilities": None, "entities": [ENTITY, ENTITY]},
]


def converted(tmp_path, convert, rows, monkeypatch, group=None):
    (tmp_path / "lines").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    if group:
        monkeypatch.setattr(conversion, "GROUP_BYTES", group)
    with open(tmp_path / "converted", "wb") as file:
        convert(tmp_path / "lines", file)
    return tmp_path / "converted"


@pytest.mark.parametrize("rows", [[], ROWS[:1], ROWS])
def test_a_json_array_has_a_row_per_line(tmp_path, rows, monkeypatch):
    path = converted(tmp_path, write_json_array, rows, monkeypatch)
    assert json.loads(path.read_text()) == rows
    assert len(path.read_text().splitlines()) == (len(rows) + 2 if rows else 1)


@pytest.mark.parametrize("group", [None, 1, 500])
@pytest.mark.parametrize("rows", [[], ROWS, ROWS * 9])
def test_parquet_has_the_same_values(tmp_path, rows, monkeypatch, group):
    path = converted(tmp_path, write_parquet, rows, monkeypatch, group)
    found = pq.read_table(path).to_pylist()
    for row in found:
        row["probabilities"] = row["probabilities"] and dict(row["probabilities"])
    assert found == [{"error": None, **row} for row in rows]
    groups = pq.ParquetFile(path).metadata.num_row_groups
    assert groups == len(rows) if group == 1 else groups <= max(len(rows) / 2, 1)
    assert groups > 5 or group is None or len(rows) < 9
    columns = pq.read_schema(path)
    assert columns.names == ["text", "label", "probabilities", "entities", "error"]
    kind = columns.field("probabilities").type
    assert (str(kind.key_type), str(kind.item_type)) == ("string", "double")


def test_without_pyarrow_one_line_names_the_command(monkeypatch):
    monkeypatch.setattr("multitask.common.errors.find_spec", lambda name: None)
    with pytest.raises(InputError, match="a.parquet needs pyarrow: pip install -r requirements-parquet.txt"):
        output_format("a.parquet")
    assert output_format("a.labelstudio.json").convert is write_json_array
