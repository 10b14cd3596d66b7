"""Each format gives the same examples."""

import json
from pathlib import Path

import pytest
from corpus_files import CONLL, FILES, JSONL, SENTENCES, content, lines, read, skipped
from reading import read_corpus


def test_json_lines(put):
    assert content(read(put("a.jsonl", lines(JSONL))).examples) == SENTENCES


@pytest.mark.parametrize("columns", ["{0} {1}", "{0}\t{1}", "{0} NNP x {1}"])
@pytest.mark.parametrize("name", ["a.conll", "train.txt"])
def test_conll_columns(put, name, columns):
    text = "\n".join(
        columns.format(*line.split()) if line and line[0] != "#" else line for line in CONLL.splitlines()
    )
    assert content(read(put(name, text)).examples) == SENTENCES


def test_jointbert_folder(put):
    put("train/seq.in", "Anna won in New York\nA vote\nNA null None\n")
    put("train/seq.out", "B-PER O O B-LOC I-LOC\nO O\nO O O\n")
    folder = Path(put("train/label", "sports\npolitics\nNA\n")).parent
    assert content(read(str(folder)).examples) == SENTENCES


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.tsv", "\t")])
def test_tables(put, name, separator):
    table = f"label{separator}text\nsports{separator}Anna won\nNA{separator}null\n{separator}no label\n"
    assert content(read(put(name, table)).examples) == [
        (["Anna", "won"], None, "sports"),
        (["null"], None, "NA"),
        (["no", "label"], None, None),
    ]


def test_missing_annotation_differs_from_no_entity(put):
    rows = read(put("a.jsonl", lines([{"tokens": ["a"], "label": None}, {"text": "a", "entities": []}])))
    assert content(rows.examples) == [(["a"], None, None), (["a"], [], None)]
    conll = read(put("a.conll", "a\nb\n\nc O\n")).examples
    assert content(conll) == [(["a", "b"], None, None), (["c"], [], None)]


@pytest.mark.parametrize("name", FILES)
def test_byte_order_mark_and_windows_line_ends_change_nothing(put, name):
    plain = read_corpus([put(name, FILES[name])]).examples
    other = b"\xef\xbb\xbf" + FILES[name].replace("\n", "\r\n").encode()
    assert read_corpus([put(name, other)]).examples == plain


def test_unicode_separators_do_not_end_lines_or_words(put):
    text = "one\u2028row\x85still"
    assert read(put("b.jsonl", json.dumps({"text": text}, ensure_ascii=False))).examples[0].text == text
    assert read(put("b.conll", "\u3000 O\n\u00a0\tB-X\n")).examples[0].words == ["\u3000", "\u00a0"]


@pytest.mark.parametrize("around", ["{}", " {}\t ", "{} x", "{} {}", "{},", "\ufeff{}", "x{}", "[{}]"])
def test_line_of_json_lines_holds_one_object(put, around):
    line = around.replace("{}", '{"tokens": ["a"]}')
    result = read(put("a.jsonl", f'{{"tokens": ["b"]}}\n{line}\n'))
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        reason = f"not JSON: {error.msg} at column {error.colno}"
        assert result.skipped == [f"{result.examples[0].path}:2: {reason}"]
    else:
        assert len(result.examples) == 1 + isinstance(row, dict)


def test_line_without_tag_spoils_its_conll_sentence(put):
    reasons = ["2: one column, where other lines of the sentence have a tag"]
    assert skipped(put("a.conll", "a O\nb\n\nc O\n")) == reasons


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("# label = x\na O\n# label = y\nb O\n", "3: a second label, or one inside a sentence"),
        ("# label = x\n# label = y\nb O\n", "2: a second label, or one inside a sentence"),
        ("# label = x\n\nb O\n", "1: no words"),
    ],
)
def test_every_label_of_a_conll_file_is_used_or_reported(put, text, reason):
    (only,) = skipped(put("a.conll", text + "\nc O\n"))
    assert only.startswith(reason)
