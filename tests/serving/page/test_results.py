"""What the page keeps: the files it gives are what the command writes, and its memory is bounded."""

import json

import pytest

from multitask.data.labels import LabelSpace
from multitask.data.rows import example_from_text
from multitask.data.texts import UnreadableRow
from multitask.inference.predictions import Entity, Prediction
from multitask.inference.writers import output_format
from multitask.serving.page.results import (
    ModelPredictions,
    Result,
    ResultStore,
    above_threshold,
    differ,
    entities_only_in,
    render_download,
)
from multitask.serving.page.view import view

LABELS = LabelSpace(("calm", "<b>"), ("PER", "LOC"), "BIO")
ANNA, PARIS = Entity(0, 4, "anna", "PER", 0.9), Entity(12, 17, "paris", "LOC", 0.4)
SAID = Prediction("anna won in paris", "calm", {"calm": 0.7, "<b>": 0.3}, [ANNA, PARIS])
PLAIN = Prediction("the vote", "<b>", {"calm": 0.2, "<b>": 0.8}, [])
BAD = UnreadableRow("rows.jsonl:2: a row has either text or tokens")


def result_of(*said, model="runs/a/model", file_name="rows.jsonl") -> Result:
    rows = [BAD if one is None else example_from_text(one.text) for one in said]
    return Result([ModelPredictions(model, LABELS, rows, said)], file_name)


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv"])
def test_a_download_holds_what_is_shown_and_no_more(name):
    result = result_of(SAID, None, PLAIN)
    head, render = output_format(name)
    rows = result.models[0].rows
    lean = SAID._replace(entities=[ANNA])
    for least, first in ((0.0, SAID), (0.4, SAID), (0.41, lean), (1.0, SAID._replace(entities=[]))):
        expected = head + render(rows[0], first) + render(rows[1], None) + render(rows[2], PLAIN)
        assert render_download(result, 0, name, least) == expected
        if name == "x.jsonl":
            marks = sum(len(json.loads(line)["entities"] or ()) for line in expected.splitlines())
            assert view(result, least).count("<mark") == marks


def test_the_oldest_results_are_forgotten_when_all_weigh_too_much():
    one, two, three = result_of(SAID), result_of(PLAIN), result_of(SAID, SAID)
    results = ResultStore(limit=one.weight + two.weight)
    results.add(one)
    results.add(two)
    assert results.get(one.key) is one  # and is the newest now
    results.add(result_of(PLAIN))
    assert results.get(two.key) is None and results.get(one.key) is one
    results.add(three)  # alone it weighs more than allowed
    assert results.get(three.key) is three and results.get(one.key) is None


def test_two_predictions_differ_where_class_type_or_ends_do_but_not_in_a_score():
    other = SAID._replace(entities=[ANNA._replace(score=0.1), PARIS._replace(label="PER")])
    assert entities_only_in(SAID, other) == [PARIS] and entities_only_in(other, SAID) == [other.entities[1]]
    assert differ(SAID, other) and not differ(SAID, above_threshold(SAID, 0.0))
    assert not differ(SAID, SAID._replace(entities=[ANNA._replace(score=0.1), PARIS]))
    assert differ(SAID, SAID._replace(label="<b>"))
    assert differ(SAID._replace(entities=None), SAID) and not differ(PLAIN, PLAIN._replace(entities=None))


def test_the_view_counts_what_it_hides_and_shows_the_first_rows_of_many():
    content = view(result_of(*[SAID] * 250, None), 0.5)
    assert "250 entities below 0.50 not shown" in content
    assert "251 rows in" in content and "1 can’t be read" in content
    assert "The first 200 of 251 rows; the downloads hold all of them." in content
    assert content.count("<li><div") == 200 and content.count("<mark") == 200
    one = view(result_of(SAID, file_name=None), 0.5)
    assert "1 entity below 0.50 not shown" in one and "without entities below 0.50" in one
    assert "not shown" not in view(result_of(SAID, file_name=None), 0.4)


def test_a_task_that_was_not_trained_is_named_and_names_are_only_text():
    bare = SAID._replace(label=None, probabilities=None, entities=None)
    content = view(result_of(bare, model="<img src=x>", file_name=None), 0.0)
    assert "not trained for classes" in content and "not trained for entities" in content
    content = view(result_of(PLAIN, None, model="<img src=x>", file_name="<i>.jsonl"), 0.0)
    assert [tag for tag in ("<img", "<i>", "<b>") if tag in content] == []


def test_past_eight_classes_the_others_are_folded_away():
    chances = {f"class {number}": (number + 1) / 55 for number in range(10)}
    said = SAID._replace(label="class 9", probabilities=chances)
    first, others = view(result_of(said, file_name=None), 0.0).split("2 more classes")
    assert [first.count("class 9"), first.count("class 2"), first.count("class 1<")] == [1, 1, 0]
    assert "class 1<" in others and "class 0<" in others


def test_where_two_models_differ_is_said():
    other = SAID._replace(label="<b>", entities=[ANNA])
    rows = [example_from_text(SAID.text)] * 2
    first = ModelPredictions("one", LABELS, rows, [SAID, SAID])
    second = ModelPredictions("two", LABELS, rows, [SAID, other])
    content = view(Result([first, second], "rows.jsonl"), 0.0)
    assert "The models differ in 1 of 2 rows." in content
    assert content.count('class="differs"') == 1 and content.count("only here") == 1
    alike = view(Result([first, ModelPredictions("two", LABELS, rows, [SAID, SAID])], "rows.jsonl"), 0.0)
    assert "agree in every row" in alike and "only here" not in alike
    rows = [
        ModelPredictions(name, LABELS, rows[:1], [said]) for name, said in (("one", SAID), ("two", other))
    ]
    assert "1 entity only in <bdi>one</bdi>" in view(Result(rows), 0.0)
    assert "only in" not in view(Result(rows), 0.5)  # the one that differs is hidden
