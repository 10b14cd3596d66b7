import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import read_corpus

from multitask.common.errors import InputError
from multitask.data.examples import Example, example_from_text
from multitask.data.labels import LabelSpace
from multitask.data.texts import UnreadableRow
from multitask.inference.predictions import Entity, Prediction
from multitask.inference.writers import check_labels_fit, output_format

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def predicted(example: Example, chosen: list[int]) -> Prediction:
    """An answer in which runs of the chosen words are entities, of alternating types."""
    entities, previous = [], None
    for number in sorted(set(chosen)):
        if number >= len(example.offsets):
            break
        start, end = example.offsets[number]
        if start == end or previous == number - 1:
            continue
        label = ("PER", "place name")[number % 2]
        entities.append(Entity(start, end, example.text[start:end], label, 0.5))
        previous = number
    return Prediction(example.text, "a class", {"a class": 0.75, "b": 0.25}, entities)


def written(name, rows, answers) -> bytes:
    _, head, render, _ = output_format(name)
    return head + b"".join(map(render, rows, answers))


@given(st.lists(TEXT, min_size=1, max_size=5), st.lists(st.integers(0, 8)))
def test_json_lines_hold_all_of_it(texts, chosen):
    rows = list(map(example_from_text, texts))
    answers = [predicted(row, chosen) for row in rows]
    lines = written("a.jsonl", rows, answers).decode().split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == [answer.to_dict() for answer in answers]


@given(st.lists(TEXT, min_size=1, max_size=5), st.lists(st.integers(0, 8)))
def test_csv_is_read_back_by_the_csv_module(texts, chosen):
    rows = list(map(example_from_text, texts))
    answers = [predicted(row, chosen) for row in rows]
    table = csv.DictReader(io.StringIO(written("a.csv", rows, answers).decode(), newline=""), strict=True)
    for found, answer in zip(table, answers, strict=True):
        assert (found["text"], found["label"], found["probability"]) == (answer.text, "a class", "0.75")
        assert json.loads(found["entities"]) == answer.to_dict()["entities"]
        assert found["error"] == ""


words = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=1, max_size=6)


@given(st.lists(words, min_size=1, max_size=4), st.lists(st.integers(0, 8)))
def test_conll_is_read_back_as_the_words_and_entities_that_were_written(tmp_path_factory, tokens, chosen):
    rows = []
    for each in tokens:
        text, offsets = "", []
        for word in each:
            offsets.append((len(text), len(text) + len(word)))
            text += f"{word} "
        rows.append(Example(each, text=text, offsets=offsets))
    answers = [predicted(row, chosen) for row in rows]
    content = written("a.conll", rows, answers)
    sentences = content.decode().split("\n\n")
    assert sentences.pop() == ""
    assert len(sentences) == len(rows)
    kept = [not sentence.startswith("# error = the word") for sentence in sentences]
    for good, each in zip(kept, tokens):
        plain = all(word.isalnum() for word in each)
        assert good or not plain, "no word of letters is refused"
    if not any(kept):
        return
    path = tmp_path_factory.mktemp("conll") / "a.conll"
    path.write_bytes(content)
    expected = [(row, said) for good, row, said in zip(kept, rows, answers) if good]
    for found, (row, said) in zip(read_corpus([str(path)]).examples, expected, strict=True):
        assert found.words == row.words
        assert found.label == "a class"
        entities = [(row.offsets[s.start][0], row.offsets[s.end - 1][1], s.label) for s in found.spans]
        assert entities == [(e.start, e.end, e.label) for e in said.entities]


def test_neighbours_of_one_type_stay_two_entities():
    row = example_from_text("Ada Obi won")
    said = Prediction(row.text, None, None, [Entity(0, 3, "Ada", "P", 1.0), Entity(4, 7, "Obi", "P", 1.0)])
    lines = written("a.conll", [row], [said]).decode().splitlines()
    assert lines[:3] == ["Ada\tB-P", "Obi\tB-P", "won\tO"]


@pytest.mark.parametrize("word", ["-DOCSTART-", "# label = x", "a\tb", "a\nb", "\ufeffAda", "", " "])
def test_a_word_that_columns_can_not_hold_is_an_error_in_its_place(word):
    row = Example([word, "won"], text=f"{word} won", offsets=[(0, len(word)), (len(word) + 1, len(word) + 4)])
    said = Prediction(row.text, "x", {"x": 1.0}, [])
    assert written("a.conll", [row], [said]).startswith(b"# error = the word ")


def test_a_row_that_can_not_be_read_has_its_place_and_its_reason():
    row = UnreadableRow("a.txt:3: the text is not valid UTF-8")
    found = json.loads(written("a.jsonl", [row], [None]))
    assert found.pop("error") == row.reason
    assert found == dict.fromkeys(["text", "label", "probabilities", "entities"])
    assert written("a.csv", [row], [None]).splitlines()[1] == b",,,," + row.reason.encode()
    assert written("a.conll", [row], [None]) == f"# error = {row.reason}\n\n".encode()


def test_a_row_without_words_keeps_its_place():
    rows = [example_from_text(text) for text in ("Ada", " ", "Obi")]
    answers = [Prediction(row.text, "x" if row.words else None, None, []) for row in rows]
    assert written("a.conll", rows, answers).split(b"\n\n")[:-1] == [
        b"# label = x\nAda\tO",
        b"# text =",
        b"# label = x\nObi\tO",
    ]
    assert written("a.csv", rows[1:2], answers[1:2]).splitlines()[1] == b" ,,,[],"


def test_a_task_that_was_not_learned_is_left_empty():
    row = example_from_text("Ada won")
    said = Prediction(row.text, None, None, None)
    assert written("a.csv", [row], [said]).splitlines()[1] == b"Ada won,,,,"
    assert written("a.conll", [row], [said]) == b"Ada\nwon\n\n"


@pytest.mark.parametrize("name", ["a.txt", "a", "a.npy"])
def test_any_other_name_is_refused(name):
    with pytest.raises(InputError, match="the extension must be .jsonl, .csv, .conll, .parquet or"):
        output_format(name)


def test_labels_that_columns_can_not_hold_are_refused():
    odd = LabelSpace(("a\nb",), ("PER",))
    check_labels_fit("a.jsonl", odd)
    with pytest.raises(InputError, match="does not fit into a column"):
        check_labels_fit("a.conll", odd)
    check_labels_fit("a.conll", LabelSpace(("two words",), ("place name",)))
