"""CSV and TSV: quotes, headers and rows of other lengths."""

import pytest
from corpus_files import corpus_refusal, read, skipped


def test_csv_has_quotes_and_tsv_has_none(put):
    (quoted,) = read(put("a.csv", 'text,label\n"a, ""b""\nc",x\n')).examples
    assert (quoted.text, quoted.line) == ('a, "b"\nc', 2)
    assert read(put("a.tsv", 'text\tlabel\n"a\tx\n')).examples[0].text == '"a'


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ('a,x\n"b,x\nc,x\nd,x\n', "3: not a row of the table: a quote that is never closed (lines 3 to 5)"),
        ('"b,x\nc" d,x\ne,x\n', "2: not a row of the table: ',' expected after '\"' (lines 2 to 3)"),
    ],
)
def test_row_with_an_unclosed_quote_is_skipped_with_its_lines(put, rows, reason):
    assert skipped(put("a.csv", "text,label\n" + rows)) == [reason]


def test_rows_of_several_lines_cause_a_notice(put):
    path = put("a.csv", 'text,label\n"b,x\nc,x\nd",x\ne,x\n"f\ng",x\n')
    result = read(path)
    assert [example.line for example in result.examples] == [2, 5, 6]
    assert result.notices == [
        f"{path}: 2 rows take several lines in quotes; the longest takes 3, from line 2 on "
        "(check that no quote is left open)"
    ]


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("text,text,label\na,b,x\n", "; text is there twice"),
        ("label,text,label\na,b,x\n", "; label is there twice"),
        ("\ntext,label\na,x\n", "; found ''"),
        ("sentence,label\na,b\n", "; found 'sentence, label'"),
        ("x" * 1000 + "\na\n", f"; found '{'x' * 60}'..."),
    ],
)
def test_header_must_name_text_and_label_once(put, table, reason):
    message = ":1: the first line names the columns, text and label"
    assert corpus_refusal(put("a.csv", table)).endswith(message + reason)


def test_header_with_an_unclosed_quote_is_refused(put):
    message = corpus_refusal(put("a.csv", '"text,label\na,x\n'))
    assert message.endswith(":1: not a line of column names: a quote that is never closed")


def test_rows_with_other_numbers_of_columns_are_skipped(put):
    rows = ["a", "a,x,y", "a,x", ",", "a,"]
    assert skipped(put("a.csv", "text,label\n" + "\n".join(rows) + "\n")) == [
        "2: 1 columns, where the first line has 2",
        "3: 3 columns, where the first line has 2",
        "5: the text has no words",
    ]
