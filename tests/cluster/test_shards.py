"""Files in pieces: the rows of all pieces are those of the file, each once, with the same lines."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multitask.cluster import shards
from multitask.cluster.inputs import find_files
from multitask.cluster.shards import number_shards, split_file
from multitask.common.errors import InputError
from multitask.data.texts import UnreadableRow, read_part, read_rows

LINES = (
    b'\xef\xbb\xbf{"text": "first"}\r\n\n  \n{"tokens": ["a", "b"]}\n{"text": "\xd7\xa9 \xf0\x9f\x98\x80"}\n'
    b'\xe3\x80\x80\n\x1c\nnot json\n{"text": "\xff"}\n["of a tool"]\n{"x": 1}\n{"text": ""}\n{"text": "z"}'
)
TEXTS = b"\xef\xbb\xbfone\n\n\xff\r\na\0b\n   \n" + b"long " * 90 + b"\nlast"


def refusal(call, *arguments) -> str:
    with pytest.raises(InputError) as error:
        call(*arguments)
    return str(error.value)


def plain(row):
    return row.reason if isinstance(row, UnreadableRow) else (row.text, row.words)


def parquet(path, texts, group):
    table = pa.table({"text": texts, "made": [b"x"] * len(texts)})
    pq.write_table(table, path, row_group_size=group)
    return str(path)


@pytest.fixture(params=["rows.jsonl", "texts.txt", "part-00000", "table.parquet", "groups.parquet"])
def large(request, put, tmp_path):
    """A file with rows of all sorts."""
    if request.param.endswith(".parquet"):
        texts = [*(f"text {i}" for i in range(20)), None, "", "end"]
        return parquet(tmp_path / request.param, texts, 3 if request.param[0] == "g" else 1000)
    return put(request.param, LINES if request.param.endswith(".jsonl") else TEXTS)


@pytest.mark.parametrize("max_rows", [1, 2, 3, 7, 100])
def test_the_rows_of_all_shards_are_the_rows_of_the_file(large, max_rows):
    expected = [plain(row) for row in read_rows(large)]
    found, lines = [], []
    for shard in number_shards([split_file(large, max_rows)]):
        rows = list(read_part(large, shard.part))
        assert 1 <= len(rows) == shard.rows <= max_rows
        found += [plain(row) for _, row in rows]
        lines += [line for line, _ in rows]
    assert found == expected and len(expected) >= 7
    assert lines == sorted(set(lines))
    if large.endswith((".jsonl", ".txt")):  # a reason begins with file:line
        for line, row in zip(lines, found):
            assert not isinstance(row, str) or row.startswith(f"{large}:{line}: ")


def test_a_shard_ends_before_it_has_too_many_bytes(put, monkeypatch):
    monkeypatch.setattr(shards, "MAX_BYTES", 30)
    path = put("a.txt", b"0123456789\n" * 5 + b"x" * 99 + b"\nend\n")
    split = split_file(path, 100)
    assert [(part.end - part.start, rows) for part, rows in split.parts] == [
        (22, 2),
        (22, 2),
        (11, 1),
        (100, 1),
        (4, 1),
    ]
    assert [line for part, _ in split.parts for line, _ in read_part(path, part)] == [*range(1, 8)]


def test_a_line_longer_than_what_is_read_at_once_is_one_row(put, monkeypatch):
    monkeypatch.setattr(shards, "_READ_BYTES", 16)
    path = put("a.txt", b"x" * 99 + b"\n" + b"y" * 32 + b"\nz")
    assert [(part.line, rows) for part, rows in split_file(path, 1).parts] == [(1, 1), (2, 1), (3, 1)]


def test_files_are_found_in_order_and_without_hidden_ones(put, tmp_path, monkeypatch):
    for name in (
        "b/2.jsonl",
        "b/10.jsonl",
        "a.jsonl",
        "b/.x.jsonl",
        "b/_temporary.jsonl",
        "_old/z.jsonl",
        ".h.txt",
    ):
        put(f"in-{name}" if "/" not in name else f"in-{name.split('/')[0]}/{name.split('/')[1]}", b"{}\n")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for path in list(tmp_path.glob("in-*")):
        path.rename(tmp_path / "in" / path.name.removeprefix("in-"))
    assert find_files("in") == ["in/a.jsonl", "in/b/10.jsonl", "in/b/2.jsonl"]
    assert find_files("in/**/*.jsonl") == find_files("in")[:1] + find_files("in/b/*.jsonl")
    assert find_files("in/b/2.jsonl") == ["in/b/2.jsonl"]


@pytest.mark.parametrize(
    ("names", "asked", "wanted"),
    [
        ([], "*.jsonl", "*.jsonl: no file matches; Parquet, JSON Lines"),
        ([], "nowhere", "nowhere: no such file; "),
        ([".hidden.txt"], ".", ".: holds no file; "),
        (["a.csv"], "a.*", "a.csv: on a cluster, Parquet, JSON Lines (.jsonl, .ndjson, .json) and text"),
        (["a.jsonl", "b.txt"], ".", ".: holds JSON Lines (a.jsonl) and text (b.txt); give a pattern"),
    ],
)
def test_what_can_not_be_the_input_is_refused(put, tmp_path, monkeypatch, names, asked, wanted):
    for name in names:
        put(name, b"x\n")
    monkeypatch.chdir(tmp_path)
    assert refusal(find_files, asked).startswith(wanted)


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("empty.txt", b"", "the file has no rows"),
        ("blank.jsonl", b"\n \n", "the file has no rows"),
        ("array.json", b'[{"text": "a"}]', "not one JSON object per line"),
        ("object.json", b'{"text":\n "a"}', "not one JSON object per line"),
        ("other.txt", "a".encode("utf-16"), "UTF-16 or UTF-32"),
        ("no.parquet", b"PAR1", "can't be read as Parquet"),
    ],
)
def test_a_file_that_can_not_be_split_is_refused(put, name, content, wanted):
    path = put(name, content)
    said = refusal(split_file, path, 10)
    assert said.startswith(path) and wanted in said and "\n" not in said
