"""Results of the page: downloads equal the command's output, memory is bounded, and differences are shown."""

import json

import pytest

from multitask.data.examples import example_from_text
from multitask.data.labels import LabelSpace
from multitask.data.texts import UnreadableRow
from multitask.inference.predictions import Entity, Prediction
from multitask.inference.writers import output_format
from multitask.serving.page.results import (
    ModelPredictions,
    Result,
    ResultStore,
    differ,
    entities_only_in,
    render_download,
)
from multitask.serving.page.view import view

LABELS = LabelSpace(("calm", "<b>"), ("PER", "LOC"), "BIO")
ANNA, PARIS = Entity(0, 4, "anna", "PER", 0.9), Entity(12, 17, "paris", "LOC", 0.4)
FULL = Prediction("anna won in paris", "calm", {"calm": 0.7, "<b>": 0.3}, [ANNA, PARIS])
NO_ENTITIES = Prediction("the vote", "<b>", {"calm": 0.2, "<b>": 0.8}, [])
BAD = UnreadableRow("rows.jsonl:2: a row has a text or tokens")


def result_of(*predictions, model="runs/a/model", file_name="rows.jsonl") -> Result:
    rows = [BAD if one is None else example_from_text(one.text) for one in predictions]
    return Result([ModelPredictions(model, LABELS, rows, predictions)], file_name)


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv"])
def test_a_download_has_the_entities_that_the_page_shows(name):
    result = result_of(FULL, None, NO_ENTITIES)
    _, head, render, _ = output_format(name, spreadsheet=True)
    rows = result.models[0].rows
    without_paris = FULL._replace(entities=[ANNA])
    none = FULL._replace(entities=[])
    for threshold, first in ((0.0, FULL), (0.4, FULL), (0.41, without_paris), (1.0, none)):
        expected = head + render(rows[0], first) + render(rows[1], None) + render(rows[2], NO_ENTITIES)
        assert render_download(result, 0, name, threshold) == expected
        if name == "x.jsonl":
            marks = sum(len(json.loads(line)["entities"] or ()) for line in expected.splitlines())
            assert view(result, threshold).count("<mark") == marks


def test_a_downloaded_table_has_no_formulas():
    """A spreadsheet would compute a text that begins with one of these characters."""
    for start in ("=", "+", "-", "@", "\t", "\r"):
        content = render_download(result_of(FULL._replace(text=f"{start}1")), 0, "x.csv", 0.0).decode()
        assert content.split("\n", 1)[1].lstrip('"').startswith(f"'{start}1")
        exact = render_download(result_of(FULL._replace(text=f"{start}1")), 0, "x.jsonl", 0.0)
        assert json.loads(exact)["text"] == f"{start}1"


def test_the_oldest_results_are_dropped_when_all_weigh_too_much():
    one, two, three = result_of(FULL), result_of(NO_ENTITIES), result_of(FULL, FULL)
    results = ResultStore(limit=one.weight + two.weight)
    results.add(one)
    results.add(two)
    assert results.get(one.key) is one  # and is the newest now
    results.add(result_of(NO_ENTITIES))
    assert results.get(two.key) is None and results.get(one.key) is one
    results.add(three)  # alone it weighs more than allowed
    assert results.get(three.key) is three and results.get(one.key) is None


def test_predictions_differ_in_class_type_or_offsets_but_not_in_scores():
    other = FULL._replace(entities=[ANNA._replace(score=0.1), PARIS._replace(label="PER")])
    assert entities_only_in(FULL, other) == [PARIS] and entities_only_in(other, FULL) == [other.entities[1]]
    assert differ(FULL, other) and not differ(FULL, FULL.if_confident(0.0, 0.0))
    assert not differ(FULL, FULL._replace(entities=[ANNA._replace(score=0.1), PARIS]))
    assert differ(FULL, FULL._replace(label="<b>"))
    assert differ(FULL._replace(entities=None), FULL)
    assert not differ(NO_ENTITIES, NO_ENTITIES._replace(entities=None))


def test_the_view_counts_hidden_entities_and_shows_the_first_rows():
    content = view(result_of(*[FULL] * 250, None), 0.5)
    assert "250 entities below 0.50 not shown" in content
    assert "251 rows in" in content and "1 can’t be read" in content
    assert "The first 200 of 251 rows; the downloads hold all of them." in content
    assert content.count("<li><div") == 200 and content.count("<mark") == 200
    one = view(result_of(FULL, file_name=None), 0.5)
    assert "1 entity below 0.50 not shown" in one and "without entities below 0.50" in one
    assert "not shown" not in view(result_of(FULL, file_name=None), 0.4)


def test_an_untrained_task_is_named_and_names_are_escaped():
    bare = FULL._replace(label=None, probabilities=None, entities=None)
    content = view(result_of(bare, model="<img src=x>", file_name=None), 0.0)
    assert "not trained for classes" in content and "not trained for entities" in content
    blank = view(result_of(FULL, FULL._replace(text=" ", label=None, probabilities=None, entities=[])), 0.0)
    assert blank.count("no class") == 1 and "2 rows in" in blank
    content = view(result_of(NO_ENTITIES, None, model="<img src=x>", file_name="<i>.jsonl"), 0.0)
    assert [tag for tag in ("<img", "<i>", "<b>") if tag in content] == []


def test_classes_after_the_eighth_are_in_a_closed_section():
    probabilities = {f"class {number}": (number + 1) / 55 for number in range(10)}
    prediction = FULL._replace(label="class 9", probabilities=probabilities)
    first, others = view(result_of(prediction, file_name=None), 0.0).split("2 more classes")
    assert [first.count("class 9"), first.count("class 2"), first.count("class 1<")] == [1, 1, 0]
    assert "class 1<" in others and "class 0<" in others


def test_the_view_names_the_differences_of_two_models():
    other = FULL._replace(label="<b>", entities=[ANNA])
    rows = [example_from_text(FULL.text)] * 2
    first = ModelPredictions("one", LABELS, rows, [FULL, FULL])
    second = ModelPredictions("two", LABELS, rows, [FULL, other])
    content = view(Result([first, second], "rows.jsonl"), 0.0)
    assert "The models differ in 1 of 2 rows." in content
    assert content.count('class="differs"') == 1 and content.count("only here") == 1
    equal = view(Result([first, ModelPredictions("two", LABELS, rows, [FULL, FULL])], "rows.jsonl"), 0.0)
    assert "agree in every row" in equal and "only here" not in equal
    pairs = (("one", FULL), ("two", other))
    text = Result([ModelPredictions(name, LABELS, rows[:1], [prediction]) for name, prediction in pairs])
    assert "1 entity only in <bdi>one</bdi>" in view(text, 0.0)
    assert "only in" not in view(text, 0.5)  # the one that differs is hidden
