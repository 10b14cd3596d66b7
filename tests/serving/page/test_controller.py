"""PageController over a stand-in for the model: results, messages, retries, comparison."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from multitask.common.errors import InputError
from multitask.data.labels import LabelSpace
from multitask.data.texts import UnreadableRow
from multitask.inference.predictions import Entity, Prediction, Word
from multitask.serving.batcher import ServerBusy
from multitask.serving.limits import Limits, estimate_tokens
from multitask.serving.page.controller import PageController
from multitask.serving.page.results import render_download

LIMITS = Limits(text_characters=40, batch_rows=4, batch_cost=30)


class Service:
    """Predicts each text's first word as an entity. `busy`: seconds to wait, one for each time it is busy."""

    def __init__(self, name="main", busy=(), kind="PER", limits=LIMITS):
        self.name, self.busy, self.limits, self.kind = name, list(busy), limits, kind
        self.labels = LabelSpace(("short", "long"), (kind,), "BIO")
        self.batcher, self.requests = SimpleNamespace(closing=False), []

    async def predict(self, rows):
        self.requests.append(list(rows))
        if self.busy:
            raise ServerBusy("busy: try again", self.busy.pop())
        return [(row, None if isinstance(row, UnreadableRow) else self.prediction(row)) for row in rows]

    def prediction(self, row):
        words = [Word(start, end, "O", 0.5) for start, end in row.offsets]
        entities = [Entity(*row.offsets[0], row.words[0], self.kind, 0.8)] if row.words else []
        return Prediction(row.text, "short", {"short": 0.9, "long": 0.1}, entities, np.ones(2), words)


class Models:
    def __init__(self, main, other=None):
        self.main, self.other, self.names = main, other, [other.name] if other else []

    async def open(self, name):
        if name not in self.names:
            raise InputError(f"{name} is not one of the models")
        return self.other


def page_of(service=None, other=None, neighbours=None):
    return PageController(Models(service or Service(), other), neighbours, LIMITS)


def show(page, pending, threshold=0.0):
    """The HTML and the key of a result."""
    return asyncio.run(page.show(pending, threshold))


def no_progress(*arguments):
    pass


def test_a_new_threshold_needs_no_new_prediction():
    page = page_of()
    content, key = show(page, page.predict_text("anna won", "", no_progress))
    assert content.count("<mark") == 1 and "2 words with tag" in content
    content, same = show(page, page.stored(key), 0.81)
    assert same == key and "<mark" not in content and "1 entity below 0.81 not shown" in content
    assert len(page.models.main.requests) == 1
    (prediction,) = page.results.get(key).models[0].predictions
    assert prediction.embedding is None and len(prediction.words) == 2


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (" \n", "There is no text yet"),
        ("x" * 41, "The text has 41 characters; at most 40 are read."),
        ("a\ud800", "not valid UTF-8"),
    ],
)
def test_an_invalid_text_gives_a_message_and_no_prediction(text, line):
    page = page_of()
    content, key = show(page, page.predict_text(text, "", no_progress))
    assert line in content and 'role="alert"' in content and key == "" and not page.models.main.requests


def test_a_file_is_predicted_in_batches_and_an_unreadable_row_keeps_its_place(put):
    lines = ["anna won", "", "%s" % ("b " * 15), "c " * 15, *"defghij", "\udcff"]
    path = put("drop/rows.txt", "\n".join(lines).encode("utf-8", "surrogateescape"))
    page, progress = page_of(), []
    content, key = show(page, page.predict_file(path, "", lambda *arguments: progress.append(arguments)))
    batches = page.models.main.requests
    readable = [[row for row in batch if not isinstance(row, UnreadableRow)] for batch in batches]
    assert [row.text for batch in readable for row in batch] == lines[:-1]
    for batch, rows in zip(batches, readable):
        assert len(batch) <= 4 and (len(batch) == 1 or sum(map(estimate_tokens, rows)) <= 30)
    assert [done for done, _, _ in progress] == [sum(map(len, batches[:n])) for n in range(len(batches))]
    assert {arguments[1:] for arguments in progress} == {(12, "main")}
    result = page.results.get(key)
    *predictions, last = result.models[0].predictions
    assert result.file_name == "rows.txt" and last is None
    assert "rows.txt:12: " in content and "1 can’t be read" in content
    assert all(prediction.words is prediction.embedding is None for prediction in predictions)


def test_the_page_retries_while_the_model_is_busy_up_to_a_limit():
    page = page_of(Service(busy=[0, 0, 0]))
    content, key = show(page, page.predict_text("anna won", "", no_progress))
    assert "<mark" in content and len(page.models.main.requests) == 4
    for busy, seconds in (([31], 30), ([0.02] * 1000, 0.05)):
        page = page_of(Service(busy=busy, limits=replace(LIMITS, busy_seconds=seconds)))
        content, key = show(page, page.predict_text("anna won", "", no_progress))
        assert "busy: try again" in content and key == ""
    assert page.models.main.busy


def test_the_page_does_not_wait_for_a_model_that_is_closing():
    page = page_of(Service(busy=[1]))
    page.models.main.batcher.closing = True
    content, _ = show(page, page.predict_text("anna won", "", no_progress))
    assert "main is no longer loaded: run it again." in content


def test_a_second_model_is_added_to_a_result_and_removed_again():
    main, other = Service(), Service("runs/b/model", kind="NAME")
    page = page_of(main, other)
    _, key = show(page, page.predict_text("anna won", "", no_progress))
    content, same = show(page, page.compare(key, other.name, no_progress))
    assert same == key and len(main.requests) == len(other.requests) == 1
    assert content.count("only here") == 2 and "1 entity only in <bdi>runs/b/model</bdi>" in content
    assert len(page.results.get(key).models[1].predictions[0].words) == 2
    content, _ = show(page, page.compare(key, "", no_progress))
    assert "only here" not in content and len(page.results.get(key).models) == 1
    content, _ = show(page, page.predict_text("anna won", other.name, no_progress))
    assert content.count("only here") == 2
    content, no_key = show(page, page.compare(key, "runs/c/model", no_progress))
    assert "not one of the models" in content and no_key == ""


def test_each_line_of_a_typed_text_is_a_text_as_in_a_file(put):
    typed = "anna won\n\n  \n%s\nso b\n" % ("x" * 41)
    page, progress = page_of(), []
    content, key = show(page, page.predict_text(typed, "", lambda *arguments: progress.append(arguments)))
    result = page.results.get(key)
    rows, predictions = result.models[0].rows, result.models[0].predictions
    assert rows[1] == UnreadableRow("text 2: 41 characters; at most 40 are read")
    assert [p and p.text for p in predictions] == ["anna won", None, "so b"]
    assert progress == [(0, 3, "main")]
    assert "3 lines, 1 can’t be read" in content and content.count("<mark") == 2 and "no class" not in content
    other = Service("runs/b/model", kind="NAME")
    page.models.other, page.models.names = other, [other.name]
    content, _ = show(page, page.compare(key, other.name, no_progress))
    assert "The models differ in 2 of 2 rows." in content
    assert render_download(result, 0, "a.jsonl", 0).count(b"\n") == 3


@pytest.mark.parametrize("typed", ["anna won", "\nanna won\n \n"])
def test_one_line_is_one_text(typed):
    page = page_of()
    content, key = show(page, page.predict_text(typed, "", no_progress))
    (prediction,) = page.results.get(key).models[0].predictions
    assert prediction.text == "anna won" and "2 words with tag" in content


def test_too_many_lines_are_refused():
    page = page_of()
    page.limits = replace(LIMITS, file_rows=2)
    content, key = show(page, page.predict_text("a\nb\nc", "", no_progress))
    assert "The text has 3 lines; at most 2 are read" in content and key == ""
    assert show(page, page.predict_text("a\n\nc", "", no_progress))[1]


def test_a_dropped_result_gives_a_message():
    page = page_of()
    content, key = show(page, page.stored("dropped"), 0.5)
    assert "no longer stored" in content and key == ""


def test_the_page_shows_how_many_sentences_were_searched():
    nearest = [SimpleNamespace(text="<i>", label="short", similarity=0.5)]
    neighbours = SimpleNamespace(total=1000, done=10, nearest=lambda embedding: nearest)
    page = page_of(neighbours=neighbours)
    content, _ = show(page, page.predict_text("anna won", "", no_progress))
    assert "Of the first 10 of 1,000 training sentences" in content and "cosine 0.500" in content
    assert "&lt;i&gt;" in content and "<i>" not in content
    neighbours.done = 1000
    content, _ = show(page, page.predict_text("anna won", "", no_progress))
    assert "Of the first" not in content
