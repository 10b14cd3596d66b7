"""Which layout a column file has: found from its first sentences."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from multitask.common.errors import InputError
from multitask.data.formats.column_layouts import (
    CONLL_U_COLUMNS,
    LABEL_STUDIO_LINE,
    NO_VALUE,
    Columns,
    ConllU,
    LabelStudio,
    Layout,
    Lines,
    expected_numbers,
    is_tag,
    split_columns,
    tag_of_misc,
    word_numbers,
)
from multitask.data.labels import has_prefix
from multitask.data.notices import abbreviate

_MOST = 0.5  # of the values of a column of tags are O or have a prefix
_NUMBERS = 0.9  # of a column that holds no words
_SOME = 0.1  # more than chance: "O" is also a word
_UNER_COLUMNS = 5  # id, word, tag, -, annotator; the last two may be missing

Table = Sequence[Sequence[str]]  # the values of each column, or of each line
Refuse = Callable[[str], InputError]  # the reason why a file can't be read → the error


def find_layout(path: str, sentences: Sequence[Lines], has_sources: bool) -> Layout:
    """The layout of a file that begins with these sentences.

    Args:
        has_sources: whether comments name the source of a sentence as GermEval does.

    Raises:
        InputError: no column or several may hold the tags, or the words are not where they should be."""
    texts = [text for lines in sentences for _, text in lines]
    if 2 * sum(LABEL_STUDIO_LINE.fullmatch(text) is not None for text in texts) > len(texts):
        return LabelStudio()
    rows = [[split_columns(text) for _, text in lines] for lines in sentences]
    flat = [fields for row in rows for fields in row if len(fields) > 1]
    if not flat:
        return Columns()
    width = Counter(map(len, flat)).most_common(1)[0][0]
    tabs = 2 * sum("\t" in text for text in texts) > len(flat)
    usual = [each for lines in sentences for each in lines if len(split_columns(each[1])) == width]
    line = next((line for line, text in usual if tabs and "\t" in text), usual[0][0])
    counted = _counts_words(rows)
    layout = partial(Columns, width=width, line=line, tabs=tabs, counted=counted)
    if counted and tabs and _is_uner(flat):
        notice = "read as UNER .iob2: words in column 2, tags in column 3"
        return layout(notice, 1, 2, width=_UNER_COLUMNS, shortest=3)
    refuse = partial(_refuse, f"{path}:{line}: {width:,} columns")
    columns = list(zip(*(fields for fields in flat if len(fields) == width)))
    if width == 2:
        word, tag = _two_columns(columns, counted, refuse)
        notice = "" if word == 0 else _notice(word, tag)
        return layout(notice, word, tag, counted=False)
    if counted and width == CONLL_U_COLUMNS and tabs and _share_of_tags(columns[-1]) < _MOST:
        tagged = any(tag_of_misc(misc) is not None for misc in columns[-1])
        tags = "tags from NER= in column 10" if tagged else "no tags, as column 10 has no NER="
        return ConllU(f"read as CoNLL-U: words in column 2, {tags}", tagged)
    if counted and width == 4 and has_sources:
        notice = (
            "read as GermEval: words in column 2, tags in column 3; the inner tags in column 4 are not read"
        )
        return layout(notice, 1, 2)
    if not counted:
        _check_words(columns[0], rows, refuse)
    word = int(counted)
    tag = _tag_column(columns, word, counted, refuse)
    return layout(_notice(word, tag), word, tag)


def _notice(word: int, tag: int) -> str:
    return f"words are read from column {word + 1}, tags from column {tag + 1:,}"


def _refuse(start: str, reason: str) -> InputError:
    return InputError(f"{start}; {reason}")


def _counts_words(sentences: Sequence[Table]) -> bool:
    """Whether at least half of the lines begin with the number of their word."""
    numbers = [
        word_numbers([fields[0] for fields in rows if fields[0][:1] != "#" or is_tag(fields[-1].strip())])
        for rows in sentences
    ]
    right = sum(number == due for row in numbers for number, due in zip(row, expected_numbers(row)))
    return 0 < sum(map(len, numbers)) <= 2 * right


def _is_uner(rows: Table) -> bool:
    """Whether lines are id, word and tag and, on some of them only, - and the annotator."""
    long = [fields for fields in rows if len(fields) == _UNER_COLUMNS]
    tags = [fields[2] for fields in rows if len(fields) in (3, 4, _UNER_COLUMNS)]
    return bool(long) and all(fields[3] == "-" for fields in long) and _share_of_tags(tags) >= _MOST


def _share_of_tags(values: Sequence[str]) -> float:
    return sum(is_tag(value.strip()) for value in values) / max(len(values), 1)


def _types(values: Sequence[str]) -> set[str]:
    return {value[2:] if has_prefix(value) else value for value in map(str.strip, values)} - {"O", *NO_VALUE}


def _two_columns(columns: Table, counted: bool, refuse: Refuse) -> tuple[int, int]:
    """The columns of word and tag of two."""
    first, last = map(_share_of_tags, columns)
    if last >= _MOST or (last > 0 and first < _MOST):
        return 0, 1
    if first >= _MOST:
        return 1, 0
    if first >= _SOME:
        raise refuse("both may hold tags; put the word first and the tag last")
    if counted and len(columns[0]) > 1:
        raise refuse("column 1 counts the words, and no column holds tags such as O and B-PERSON")
    if NO_VALUE.issuperset(columns[1]):
        raise refuse(f"column 2 holds {columns[1][0] or 'nothing'}, not tags such as O and B-PERSON")
    return 0, 1


def _check_words(first: Sequence[str], rows: Sequence[Table], refuse: Refuse) -> None:
    """Raises InputError if the first column holds numbers, or names the sentence or its document."""
    put = "put the word into column 1"
    if sum(map(str.isdecimal, first)) > _NUMBERS * len(first):
        raise refuse(f"column 1 holds numbers that do not count the words of each sentence; {put}")
    values = [{fields[0] for fields in row} for row in rows if len(row) > 1]
    if values and all(len(value) == 1 for value in values):
        raise refuse(f"column 1 is {abbreviate(first[0])} on every line of its sentence; {put}")


def _tag_column(columns: Table, word: int, counted: bool, refuse: Refuse) -> int:
    """The column that holds the tags: the last one or, if that holds none, the only one that does."""
    last = len(columns) - 1
    others = [c for c in range(word + 1, last) if _share_of_tags(columns[c]) >= _MOST]
    share = _share_of_tags(columns[last])
    shown = " and ".join(str(c + 1) for c in [*others[:3], *([last] if share > 0 else [])])
    same = [c for c in others if share >= _MOST and (counted or _types(columns[c]) & _types(columns[last]))]
    if same or (others and 0 < share < _MOST) or (share == 0 and len(others) > 1):
        raise refuse(f"columns {shown} may all hold the tags; keep only one of them")
    if share > 0:
        return last
    if others:
        return others[0]
    raise refuse("none holds tags such as O and B-PERSON; put the tag last, or keep only the words")
