"""Data files that are damaged or made to harm: every row is used or reported, or one line says why not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from test_readers import CONLL, JSONL, lines

from multitask.common.errors import InputError
from multitask.data import formats
from multitask.data.readers import read_corpus, read_texts
from multitask.data.words import split_words

SIZE = 10 << 20  # characters of a large row
# tables of characters that stand in a format's way, and the files that they spoil
FILES = {
    "a.jsonl": lines(JSONL),
    "a.conll": CONLL,
    "a.csv": "text,label\nAnna won,sports\nA vote,politics\n",
    "a.tsv": "text\tlabel\nAnna won\tsports\nA vote\tpolitics\n",
}


def refused(path: str, read=read_corpus) -> str:
    """The one line that reading a file ends with."""
    with pytest.raises(InputError) as error:
        read([path]) if read is read_corpus else list(read(path))
    assert "\n" not in str(error.value)
    return str(error.value)


def skipped(path: str) -> list[str]:
    """The reasons why rows of a file can't be used, with their lines; all rows are accounted for."""
    reading = read_corpus([path], "skip")
    assert reading.rows == len(reading.examples) + len(reading.skipped)
    return [reason.removeprefix(f"{path}:") for reason in reading.skipped]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-be", "utf-32-be"])
@pytest.mark.parametrize("name", [*FILES, "folder/seq.in", "a.txt", "texts"])
def test_another_encoding_is_named_once(put, name, encoding):
    content = ("\ufeff" if encoding.endswith("be") else "") + FILES.get(name, "anna won\n" * 1000)
    path = put(name, content.encode(encoding))
    reason = f"{path}:1: UTF-16 or UTF-32, by its byte order mark; save the file as UTF-8"
    if name == "texts":
        assert refused(path, read_texts) == reason
    else:
        assert refused(str(Path(path).parent) if "/" in name else path) == reason


@pytest.mark.parametrize("name", FILES)
def test_a_byte_order_mark_and_windows_lines_change_nothing(put, name):
    plain = read_corpus([put(name, FILES[name])]).examples
    other = b"\xef\xbb\xbf" + FILES[name].replace("\n", "\r\n").encode()
    assert read_corpus([put(name, other)]).examples == plain


def test_lines_that_end_in_a_carriage_return_alone(put):
    # JSON takes it as white space and a table as the end of a line; elsewhere it would join rows
    table = FILES["a.csv"].replace("\n", "\r")
    assert read_corpus([put("a.csv", table)]).examples == read_corpus([put("a.csv", FILES["a.csv"])]).examples
    joined = put("a.jsonl", lines(JSONL).replace("\n", "\r"))
    assert skipped(joined) == ["1: not JSON: Extra data at column 116"]
    assert "carriage return inside the line" in refused(put("a.conll", CONLL.replace("\n", "\r")))
    assert skipped(put("a.conll", "a O\n\nb O\rc B-X\n\nd O\n")) == [f"3: {formats._RETURN}"]
    put("d/seq.in", "a b\rc d\ne f\n")
    folder = str(Path(put("d/seq.out", "O O\rO O\nO O\n")).parent)
    assert skipped(folder) == [f"1: {formats._RETURN}"]
    assert "lines end in \\r alone" in refused(put("a.txt", "one\rtwo\rthree"), read_texts)
    assert list(read_texts(put("a.txt", "one\rstill\ntwo"))) == [(1, "one\rstill"), (2, "two")]


def test_nul_is_a_character_like_others(put):
    assert skipped(put("a.jsonl", b'{"text": "a\0"}\n{"text": "a\\u0000b"}\n')) == [
        "1: not JSON: Invalid control character at at column 12"
    ]
    for name, content in (("a.conll", b"a\0 O\n"), ("a.csv", b"text,label\na\0,x\n"), ("a.txt", b"a\0 O\n")):
        assert read_corpus([put(name, content)]).examples[0].words[0][:2] in ("a\0", "a")
    assert list(read_texts(put("a.txt", b"a\0b\n"))) == [(1, "a\0b")]


def test_a_quote_that_swallows_rows_is_noticed(put):
    path = put("a.csv", 'text,label\na,x\n"b,x\nc,x\nd,x\n')
    assert skipped(path) == ["3: not a row of the table: a quote that is never closed (lines 3 to 5)"]
    path = put("a.csv", 'text,label\n"b,x\nc" d,x\ne,x\n')
    assert skipped(path) == ["2: not a row of the table: ',' expected after '\"' (lines 2 to 3)"]
    path = put("a.csv", 'text,label\n"b,x\nc,x\nd",x\ne,x\n"f\ng",x\n')
    reading = read_corpus([path])
    assert [example.line for example in reading.examples] == [2, 5, 6]
    assert reading.notices == [
        f"{path}: 2 rows take several lines in quotes; the longest takes 3, from line 2 on (so does a quote "
        "that is not closed in its row)"
    ]
    assert refused(put("a.csv", '"text,label\na,x\n')).endswith(
        ":1: not a line of column names: a quote that is never closed"
    )


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("text,text,label\na,b,x\n", "; text stands twice"),
        ("label,text,label\na,b,x\n", "; label stands twice"),
        ("\ntext,label\na,x\n", "; found ''"),
        ("x" * SIZE + "\na\n", f"; found '{'x' * 60}'..."),
    ],
)
def test_a_header_that_can_not_be(put, table, reason):
    assert refused(put("a.csv", table)).endswith(
        ":1: the first line names the columns, text and label" + reason
    )


def test_ragged_rows_are_reported(put):
    rows = ["a", "a,x,y", "a,x", ",", "a,"]
    found = skipped(put("a.csv", "text,label\n" + "\n".join(rows) + "\n"))
    assert [reason[:13] for reason in found] == ["2: 1 columns,", "3: 3 columns,", "5: the text ha"[:13]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("# label = x\na O\n# label = y\nb O\n", "3: a second label, or one inside a sentence"),
        ("# label = x\n# label = y\nb O\n", "2: a second label, or one inside a sentence"),
        ("# label = x\n\nb O\n", "1: no words"),
    ],
)
def test_no_label_of_a_conll_file_is_lost(put, text, reason):
    (found,) = skipped(put("a.conll", text + "\nc O\n"))
    assert found.startswith(reason)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"text": "a", "text": "b"}', "the key 'text' stands twice in an object"),
        ('{"text": "a", "text" : "b"}', "the key 'text' stands twice in an object"),
        ('{"text": "a", "text"\t: "b"}', "the key 'text' stands twice in an object"),
        ('{"text" :"a", "text" :"b", "note":{"a":1}}', "the key 'text' stands twice in an object"),
        ('{"text": "a", "entities": [{"start":0, "end":1, "end":1, "label":"X"}]}', "the key 'end' stands"),
        ('{"text": "a", "entities": [{"start": 0, "end": 1, "end": 1}]}', "the key 'end' stands twice"),
        ('{"text": "a", "x": {"k": 1, "k": 2}}', "the key 'k' stands twice"),
        ('{"text": "a", "x": ' + "[" * 20_000 + "]" * 20_000 + "}", "too deep"),
        ('{"text": "a", "label": ' + '{"a":' * 900 + "1" + "}" * 900 + "}", "label is an object"),
        ('{"text": "a", "label": ' + "[" * 900 + "]" * 900 + "}", "label is a list"),
        ('{"text": "a", "label": ' + "9" * 4000 + "}", "label is 999999999"),
        ('{"text": "a", "label": ' + "9" * 5000 + "}", "a number too long"),
        ('{"text": "a", "label": NaN}', "label is NaN"),
        ('{"text": "a", "entities": [{"start": NaN, "end": Infinity, "label": "X"}]}', "not NaN and Inf"),
        ('{"text": "a", "entities": [{"start": 0, "end": ' + "9" * 4000 + ', "label": "X"}]}', "from 0 to 9"),
        ('{"text": "a", "entities": [{"start": [' + "[" * 900 + "]" * 900 + '], "end": 1}]}', "not a list"),
        ('{"tokens": ["\\udfff"]}', "a word is not valid UTF-8"),
        ('{"tokens": ["a"], "tags": ["B-\\ud800"]}', "tags is a list of tags"),
        ('{"text": "a", "label": "\\ud800"}', "the label is not valid UTF-8"),
        ('{"text": "a b", "entities": [{"start": 0, "end": 3, "label": "X"}, '
         '{"start": 1, "end": 2, "label": "' + "Y" * 10_000 + '"}]}', "two entities overlap"),
    ],
)  # fmt: skip
def test_a_hostile_json_row_is_one_short_line(put, row, reason):
    (found,) = skipped(put("a.jsonl", f'{{"text": "b"}}\n{row}\n{{"text": "c"}}\n'))
    assert found.startswith("2: ")
    assert reason in found
    assert len(found) < 250
    assert "\n" not in found


def test_keys_that_are_not_read_are_named_up_to_a_number(put):
    row = {"text": "a", "\ud800": 1, "k" * 100_000: 1, **{f"key{i}": 1 for i in range(50)}}
    notices = read_corpus([put("a.jsonl", json.dumps(row) + "\n")]).notices
    assert len(notices) == 21
    assert notices[-1].endswith("32 more keys are not read")
    assert max(map(len, notices)) < 250


def with_entities(number: int) -> str:
    """A text of one long word, cut into entities of two characters."""
    entities = [{"start": 2 * i, "end": 2 * i + 2, "label": "X"} for i in range(number)]
    return json.dumps({"text": "ab" * number, "entities": entities}) + "\n"


def overlapping(number: int) -> str:
    """Entities that all reach over the whole of a long text."""
    entities = [{"start": i, "end": 5 * number, "label": "X"} for i in range(number)]
    return json.dumps({"text": "." * 5 * number, "entities": entities}) + "\n"


LARGE = {
    "one word.jsonl": lambda: json.dumps({"text": "a" * SIZE}) + "\n",
    "dots.jsonl": lambda: json.dumps({"text": "." * (SIZE // 8)}) + "\n",
    "one key.jsonl": lambda: json.dumps({"text": "a", "k" * SIZE: 1}) + "\n",
    "many keys.jsonl": lambda: json.dumps({"text": "a", **{str(i): 1 for i in range(SIZE // 16)}}) + "\n",
    "tokens.jsonl": lambda: json.dumps({"tokens": ["a"] * (SIZE // 8), "tags": ["B-X"] * (SIZE // 8)}) + "\n",
    "entities.jsonl": lambda: with_entities(SIZE // 64),
    "overlapping.jsonl": lambda: overlapping(SIZE // 64),
    "comment.conll": lambda: f"# {' ' * SIZE}\n# {'a' * SIZE}\n# label = {'b ' * (SIZE // 2)}\na O\n",
    "columns.conll": lambda: "a " * (SIZE // 2) + "O\n",
    "sentence.conll": lambda: "a O\n" * (SIZE // 8),
    "quoted.csv": lambda: 'text,label\n"' + 'a "" \n' * (SIZE // 6) + '",x\n',
    "columns.csv": lambda: "text,label\n" + "a," * (SIZE // 2) + "\n",
    "quotes.csv": lambda: "text,label\n" + '"' * SIZE + "\nb,x\n",
    "row.tsv": lambda: "text\tlabel\n" + "a" * SIZE + "\tx\n",
}  # fmt: skip
READ = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
from multitask.data.readers import read_corpus
reading = read_corpus([sys.argv[1]], "skip")
assert reading.rows == len(reading.examples) + len(reading.skipped) > 0
assert all(len(line) < 500 for line in [*reading.skipped, *reading.notices])
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", LARGE)
def test_a_row_of_megabytes_takes_no_quadratic_time(put, name):
    # what is linear takes seconds; what is quadratic, hours
    path = put(name, LARGE[name]())
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", READ, path], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_many_cuts_inside_one_word_part_it():
    text = "a" * 200_000
    assert split_words(text, range(len(text))) == [(i, i + 1) for i in range(len(text))]


def test_a_path_that_is_no_file(tmp_path, put):
    pipe, loop = tmp_path / "pipe.jsonl", tmp_path / "loop.jsonl"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    for path in (pipe, "/dev/zero", "/dev/null"):
        assert refused(str(path)) == f"{path}: is a pipe or a device, not a file"
        assert refused(str(path), read_texts) == f"{path}: no file of texts; - is standard input"
    assert refused(str(tmp_path), read_texts) == f"{tmp_path}: no file of texts; - is standard input"
    long, inside = tmp_path / ("x" * 300), f"{put('a.jsonl', lines(JSONL))}/b.jsonl"
    assert "no such file" in refused(f"{tmp_path}/\0.jsonl")
    for path in (loop, long, inside):
        assert str(path) in refused(str(path))


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), FileNotFoundError(2, "No such file")]
)
@pytest.mark.parametrize("name", [*FILES, "a.txt", "d/seq.in"])
def test_a_file_that_can_not_be_opened(put, monkeypatch, name, error):
    path = Path(put(name, FILES.get(name, "a\n")))

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr("builtins.open", refuse)
    read = read_texts if name == "a.txt" else read_corpus
    path = path.parent if "/" in name else path
    assert refused(str(path), read) == f"{path}: {error.strerror.lower()}"


def test_a_folder_does_not_read_what_its_links_name_outside_of_it(tmp_path, put):
    secret = put("private/key", "my secret\n")
    folder = tmp_path / "d"
    folder.mkdir()
    for target in (secret, "../private/key", "/etc/hostname"):
        (folder / "seq.in").symlink_to(target)
        assert refused(str(folder)) == (
            f"{folder}/seq.in: is a link that leads out of its folder; copy the file into it"
        )
        (folder / "seq.in").unlink()
    put("d/seq.in", "a b\n")
    (folder / "label").symlink_to(secret)
    assert "d/label: is a link that leads out" in refused(str(folder))
    (folder / "label").unlink()
    put("d/names", "x\n")
    (folder / "label").symlink_to("names")
    shutil.move(folder, tmp_path / "e")
    folder.symlink_to("e")
    assert [example.label for example in read_corpus([str(folder)]).examples] == ["x"]


@pytest.mark.parametrize("member", ["seq.in", "seq.out", "label"])
def test_a_members_place_is_not_taken_by_something_else(tmp_path, put, member):
    folder = str(Path(put("d/seq.in", "a\n")).parent)
    (tmp_path / "d" / member).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "d" / member)
    assert refused(folder) == f"{folder}/{member}: is no file"
