import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_words import WHITE

from multitask.common.errors import InputError
from multitask.data.labels import Span
from multitask.data.readers import (
    OtherTags,
    ReadResult,
    is_corpus,
    iter_examples,
    read_corpus,
    read_file,
    read_texts,
)
from multitask.data.rows import Example

SENTENCES = [
    (["Anna", "won", "in", "New", "York"], [Span(0, 1, "PER"), Span(3, 5, "LOC")], "sports"),
    (["A", "vote"], [], "politics"),
    (["NA", "null", "None"], [], "NA"),
]
JSONL = [
    {"tokens": SENTENCES[0][0], "tags": ["B-PER", "O", "O", "B-LOC", "I-LOC"], "label": "sports"},
    {"tokens": SENTENCES[1][0], "tags": ["O", "O"], "label": "politics"},
    {"tokens": SENTENCES[2][0], "tags": ["O", "O", "O"], "label": "NA"},
]
CONLL = """-DOCSTART- O

# sent_id = 1
# label = sports
Anna B-PER
won O
in O
New B-LOC
York I-LOC

# label = politics
A O
vote O


# label = NA
NA O
null O
None O
"""


def content(examples: list[Example]) -> list[tuple]:
    return [(e.words, e.spans, e.label) for e in examples]


def lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_json_lines(put):
    assert content(read_file(put("a.jsonl", lines(JSONL))).examples) == SENTENCES


@pytest.mark.parametrize("columns", ["{0} {1}", "{0}\t{1}", "{0} NNP x {1}"])
def test_conll_columns(put, columns):
    text = "\n".join(
        columns.format(*line.split()) if line and line[0] != "#" else line for line in CONLL.splitlines()
    )
    assert content(read_file(put("a.conll", text)).examples) == SENTENCES
    assert content(read_file(put("train.txt", text)).examples) == SENTENCES, "a file of another name"


@pytest.mark.parametrize(
    "tags",
    ["I-PER O O I-LOC I-LOC", "S-PER O O B-LOC E-LOC", "U-PER O O B-LOC L-LOC", "PER O O LOC LOC"],
)
def test_tag_schemes_are_found_from_the_file(put, tags):
    read = read_file(put("a.jsonl", lines([{**JSONL[0], "tags": tags.split()}, JSONL[1]])))
    assert content(read.examples) == SENTENCES[:2]
    notice = f"{read.examples[0].path}: 2 entities begin with I- (or E-, L-, M-); read as IOB1"
    assert read.notices == ([notice] if tags.startswith("I-") else [])


def test_jointbert_folder(put):
    put("train/seq.in", "Anna won in New York\nA vote\nNA null None\n")
    put("train/seq.out", "B-PER O O B-LOC I-LOC\nO O\nO O O\n")
    folder = Path(put("train/label", "sports\npolitics\nNA\n")).parent
    assert content(read_file(str(folder)).examples) == SENTENCES


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.tsv", "\t")])
def test_tables_are_read_as_text(put, name, separator):
    table = f"label{separator}text\nsports{separator}Anna won\nNA{separator}null\n{separator}no label\n"
    assert content(read_file(put(name, table)).examples) == [
        (["Anna", "won"], None, "sports"),
        (["null"], None, "NA"),
        (["no", "label"], None, None),
    ]


def test_a_table_may_quote_and_a_tab_separated_file_may_not(put):
    quoted = read_file(put("a.csv", 'text,label\n"a, ""b""\nc",x\n')).examples[0]
    assert (quoted.text, quoted.line) == ('a, "b"\nc', 2)
    assert read_file(put("a.tsv", 'text\tlabel\n"a\tx\n')).examples[0].text == '"a'


def test_character_spans_are_word_boundaries(put):
    text = "The NewYork-based AT&T'ers"
    entities = [{"start": 4, "end": 11, "label": "LOC"}, {"start": 18, "end": 22, "label": "ORG"}]
    (example,) = read_file(put("a.jsonl", lines([{"text": text, "entities": entities}]))).examples
    assert example.words == ["The", "NewYork", "-based", "AT&T", "'ers"]
    assert example.spans == [Span(1, 2, "LOC"), Span(3, 4, "ORG")]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.data())
def test_no_span_is_lost_wherever_it_lies(tmp_path_factory, text, data):
    ends = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    pairs = zip(ends[::2], ends[1::2])
    entities = [{"start": a, "end": b, "label": "X"} for a, b in pairs if text[a:b].strip(WHITE)]
    path = tmp_path_factory.mktemp("spans") / "a.jsonl"
    path.write_text(json.dumps({"text": text, "entities": entities}) + "\n")
    read = read_corpus([path], "skip")
    if not read.examples:
        assert not text.strip(WHITE)
        return
    (example,) = read.examples
    for span, entity in zip(example.spans, entities, strict=True):
        first, last = example.offsets[span.start][0], example.offsets[span.end - 1][1]
        assert text[first:last] == text[entity["start"] : entity["end"]].strip(WHITE)


def test_missing_annotation_is_not_no_entity(put):
    read = read_file(put("a.jsonl", lines([{"tokens": ["a"], "label": None}, {"text": "a", "entities": []}])))
    assert content(read.examples) == [(["a"], None, None), (["a"], [], None)]
    conll = read_file(put("a.conll", "a\nb\n\nc O\n")).examples
    assert content(conll) == [(["a", "b"], None, None), (["c"], [], None)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"tokens": ["a"], "tags": ["O"', "not JSON"),
        ("[1, 2]", "a row is a JSON object"),
        ("[" * 50_000, "too deep"),
        ('{"label": "x"}', "either text or tokens"),
        ('{"text": "a", "tokens": ["a"]}', "either text or tokens"),
        ('{"tokens": ["a", "b"], "tags": ["O"]}', "2 tokens, but 1 tags"),
        ('{"tokens": [], "tags": []}', "no words"),
        ('{"tokens": "a b"}', "tokens is a list"),
        ('{"tokens": ["a", 1]}', "tokens is a list"),
        ('{"tokens": ["a"], "tags": [1]}', "tags is a list"),
        ('{"tokens": ["a"], "tags": [""]}', "tags is a list"),
        ('{"tokens": ["a"], "entities": []}', "with tokens give tags"),
        ('{"text": "a", "tags": ["O"]}', "with a text give entities"),
        ('{"text": "  "}', "no words"),
        ('{"text": 5}', "text is a string"),
        ('{"text": "a", "label": 3}', "label is 3"),
        ('{"text": "a", "label": ""}', "label is ''"),
        ('{"text": "\\ud800"}', "not valid UTF-8"),
        ('{"text": "ab", "entities": [{"start": 0, "end": 3, "label": "X"}]}', "from 0 to 3 in a text of 2"),
        ('{"text": "ab", "entities": [{"start": 1, "end": 1, "label": "X"}]}', "from 1 to 1"),
        ('{"text": "a b", "entities": [{"start": 1, "end": 2, "label": "X"}]}', "holds no word"),
        ('{"text": "ab", "entities": [{"start": true, "end": 2, "label": "X"}]}', "numbers of characters"),
        ('{"text": "ab", "entities": [{"start": 0, "end": 2}]}', "label is null"),
        ('{"text": "abc", "entities": [{"start": 0, "end": 2, "label": "X"},'
         ' {"start": 1, "end": 3, "label": "Y"}]}', "overlap at character 1"),
        ('{"tokens": ["a", "b"], "tags": ["PER", "O"]}', "most tags of this file have a prefix"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_with_its_line_and_reason(put, row, reason):
    good = lines(JSONL[:1])
    path = put("a.jsonl", good + "\n" + row + "\n" + good)
    with pytest.raises(InputError) as error:
        read_corpus([path])
    assert str(error.value).startswith(f"{path}:3: ")
    assert reason in str(error.value)
    read = read_corpus([path], "skip")
    assert (len(read.examples), len(read.skipped), read.rows) == (2, 1, 3)


def test_bytes_that_are_no_utf8_spoil_their_row_only(put):
    for name, good, bad in (
        ("a.jsonl", b'{"text": "a"}\n', b'{"text": "\xff"}\n'),
        ("a.csv", b"text,label\nb,x\n", b"\xff,x\n"),
        ("a.conll", b"a O\n\n", b"\xff O\n"),
    ):
        read = read_corpus([put(name, good + bad)], "skip")
        assert (len(read.examples), len(read.skipped)) == (1, 1), name


def test_bad_rows_of_other_formats(put):
    conll = put("a.conll", "a O\nb\n\nc O\n")
    assert read_corpus([conll], "skip").skipped == [
        f"{conll}:2: one column, where other lines of the sentence have a tag"
    ]
    table = put("a.csv", "text,label\na,b,c\nd,e\n")
    assert read_corpus([table], "skip").skipped == [f"{table}:2: 3 columns, where the first line has 2"]


def test_up_to_20_bad_rows_are_listed_and_the_rest_counted(put):
    with pytest.raises(InputError) as error:
        read_corpus([put("a.jsonl", "{}\n" * 35)])
    assert str(error.value).count("either text or tokens") == 20
    assert "... and 15 more" in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.jsonl", "", "no rows"),
        ("a.conll", "\n\n", "no rows"),
        ("a.csv", "text,label\n", "no rows"),
        ("a.csv", "sentence,label\na,b\n", "names the columns, text and label; found 'sentence, label'"),
        ("d/seq.in", "a\nb\n", None),
        ("e/other", "a", "no seq.in"),
    ],
)
def test_files_that_hold_nothing_to_read(put, name, text, reason):
    path = put(name, text)
    if "/" in name:
        path = str(Path(path).parent)
        if reason is None:
            put("d/label", "x\n")
            reason = "seq.in has 2 lines, label has 1 lines"
    with pytest.raises(InputError, match=reason):
        read_corpus([path])


def test_every_missing_file_is_named(put):
    with pytest.raises(InputError, match="(?s)x.jsonl: no such file.*y.csv: no such file"):
        read_corpus(["x.jsonl", put("a.jsonl", lines(JSONL)), "y.csv"])


def test_windows_files_and_odd_separators_change_nothing(put):
    plain = lines(JSONL)
    assert (
        content(read_file(put("a.jsonl", b"\xef\xbb\xbf" + plain.replace("\n", "\r\n").encode())).examples)
        == SENTENCES
    )
    assert (
        content(read_file(put("a.conll", b"\xef\xbb\xbf" + CONLL.replace("\n", "\r\n").encode())).examples)
        == SENTENCES
    )
    text = "one\u2028row\x85still"
    assert read_file(put("b.jsonl", json.dumps({"text": text}, ensure_ascii=False))).examples[0].text == text
    assert read_file(put("b.conll", "\u3000 O\n\u00a0\tB-X\n")).examples[0].words == ["\u3000", "\u00a0"]


def test_keys_that_are_not_read_are_named(put):
    read = read_file(put("a.jsonl", lines([{"tokens": ["a"], "tag": ["O"]}] * 3)))
    assert read.notices == [f"{read.examples[0].path}: 'tag' in 3 rows is not read; did you mean tags?"]


@pytest.mark.parametrize(
    ("key", "meant"),
    [("lable", "label"), ("entity", "entities"), ("texts", "text"), ("t", None), ("id", None), ("a.t", None)],
)
def test_only_a_misspelt_key_gets_a_suggestion(put, key, meant):
    (notice,) = read_file(put("a.jsonl", lines([{"tokens": ["a"], key: 1}]))).notices
    assert notice.endswith(f"did you mean {meant}?" if meant else "is not read")


def test_plain_texts_keep_their_empty_lines(put):
    path = put("a.txt", "\ufeffone\r\n\n two\u2028 \n")
    assert list(read_texts(path)) == [(1, "one"), (2, ""), (3, " two\u2028 ")]
    with pytest.raises(InputError, match="a.txt:2: not UTF-8"):
        list(read_texts(put("a.txt", b"good\n\xff\n")))
    assert is_corpus("x.jsonl")
    assert not is_corpus("x.txt")


@given(
    st.lists(st.lists(st.sampled_from(["O", "O", "B-A", "I-A", "A", "B"]), min_size=1, max_size=3)), st.data()
)
def test_a_file_read_once_gives_what_reading_it_twice_gives(tmp_path_factory, tags, data):
    rows = [{"tokens": ["w"] * len(row), "tags": row} for row in tags] + [{"tokens": ["w"]}]
    path = str(tmp_path_factory.mktemp("tags") / "a.jsonl")
    Path(path).write_text(lines(rows))
    twice, once = ReadResult(), ReadResult()
    twice.examples = list(iter_examples([path], twice, "skip", twice=True))
    kept = Counter(tag for row in tags for tag in row if tag != "O")
    prefixed = sum(kept[tag] for tag in ("B-A", "I-A")) >= sum(kept[tag] for tag in ("A", "B"))
    odd = {"A", "B"} if prefixed else {"B-A", "I-A"}
    assert [e.line for e in twice.examples] == [
        line for line, row in enumerate(rows, 1) if not odd & set(row.get("tags", ()))
    ]
    try:
        once.examples = list(iter_examples([path], once, "skip", twice=False))
    except OtherTags:
        assert kept
        once = read_corpus([path], "skip")
    assert once == twice


def test_first_tags_that_mislead_lose_no_row_and_misread_none(put):
    few, many = {"tokens": ["a"], "tags": ["PER"]}, {"tokens": ["a", "b"], "tags": ["B-PER", "I-PER"]}
    path = put("a.jsonl", lines([few] + [many] * 3))
    reading = read_corpus([path, path], "skip")
    assert (
        reading.skipped == [f"{path}:1: tag 'PER': most tags of this file have a prefix such as B- or I-"] * 2
    )
    assert content(reading.examples) == [(["a", "b"], [Span(0, 2, "PER")], None)] * 6
    assert (reading.rows, reading.file_rows) == (8, [0, 3, 6])
    with pytest.raises(InputError, match="a.jsonl:1: tag 'PER'"):
        read_corpus([path])


@pytest.mark.parametrize("around", ["{}", " {}\t ", "{} x", "{} {}", "{},", "\ufeff{}", "x{}", "[{}]"])
def test_a_line_is_one_json_object_and_nothing_else(put, around):
    line = around.replace("{}", '{"tokens": ["a"]}')
    read = read_corpus([put("a.jsonl", f'{{"tokens": ["b"]}}\n{line}\n')], "skip")
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        assert read.skipped == [f"{read.examples[0].path}:2: not JSON: {error.msg} at column {error.colno}"]
    else:
        assert len(read.examples) == 1 + isinstance(row, dict)
