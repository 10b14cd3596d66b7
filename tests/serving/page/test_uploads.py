"""Reading an uploaded file: its rows, or a message of one line, with the user's name for the file."""

import pytest

from multitask.common.errors import InputError
from multitask.data.texts import UnreadableRow
from multitask.serving.limits import Limits
from multitask.serving.page.uploads import read_upload

LIMITS = Limits(text_characters=20, file_rows=3)


def test_rows_are_read_and_the_file_is_removed(put, tmp_path):
    path = put("drop/rows.jsonl", '{"text": "anna won"}\n{"nope": 1}\n{"text": "%s"}\n' % ("x" * 21))
    good, bad, long = read_upload(path, LIMITS)
    assert good.text == "anna won"
    assert bad == UnreadableRow("rows.jsonl:2: a row has a text or tokens")
    assert long == UnreadableRow("rows.jsonl: row 3: 21 characters; at most 20")
    assert not (tmp_path / "drop").exists()


@pytest.mark.parametrize(
    ("name", "texts"),
    [("a.txt", b"one\n\ntwo"), ("a.csv", b'text,label\none,x\n"",\ntwo,'), ("a.TXT", b"one\r\n\r\ntwo\r\n")],
)
def test_each_line_of_a_text_file_and_each_record_of_a_table_is_a_row(put, name, texts):
    assert [row.text for row in read_upload(put(name, texts), LIMITS)] == ["one", "", "two"]


def test_exports_of_annotation_tools_are_rows(put):
    rows = '[{"text": "one", "label": [[0, 3, "X"]]},\n {"data": {"text": "two"}}]'
    assert [row.text for row in read_upload(put("a.json", rows), LIMITS)] == ["one", "two"]
    rasa = "nlu:\n- intent: x\n  examples: |\n    - [one](X)\n    - two\n"
    assert [row.text for row in read_upload(put("a.yml", rasa), LIMITS)] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "small.parquet",  # may unpack to gigabytes
            b"PAR1",
            "small.parquet: a text file (.txt), CSV or JSON Lines (.csv, .jsonl) can be read",
        ),
        (
            "photo.png",
            b"\x89PNG",
            "photo.png: a text file (.txt), CSV or JSON Lines (.csv, .jsonl) can be read",
        ),
        ("noise.txt", b"a\0b\n", "noise.txt: is not a text file"),
        ("empty.csv", b"", "empty.csv: has no rows"),
        (
            "many.txt",
            b"a\n" * 4,
            "many.txt: more than 3 rows; python task_5.py predict reads files of any size",
        ),
        ("no.csv", b"sentence\nx\n", "no.csv:1: the first line names the columns, text and label; found"),
        ("wide.txt", "anna".encode("utf-16"), "wide.txt:1: UTF-16 or UTF-32, by its byte order mark"),
    ],
)
def test_an_unreadable_file_gives_one_line_without_the_servers_folders(put, tmp_path, name, content, reason):
    with pytest.raises(InputError) as error:
        read_upload(put(f"drop/{name}", content), LIMITS)
    assert str(error.value).startswith(reason)
    assert str(tmp_path) not in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "drop").exists()
