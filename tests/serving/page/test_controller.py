"""The page's questions, put to a service that is a list of answers."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

from multitask.common.errors import InputError
from multitask.data.labels import LabelSpace
from multitask.data.texts import UnreadableRow
from multitask.inference.predictions import Entity, Prediction, Word
from multitask.serving.batcher import Busy
from multitask.serving.limits import Limits, estimate_tokens
from multitask.serving.page import controller
from multitask.serving.page.controller import PageController

LIMITS = Limits(text_characters=40, batch_rows=4, batch_cost=30)


class Service:
    """Says that a text's first word is a PER; is busy as often as it is told."""

    labels = LabelSpace(("short", "long"), ("PER",), "BIO")

    def __init__(self, name="main", busy=(), kind="PER"):
        self.name, self.busy, self.limits, self.kind = name, list(busy), LIMITS, kind
        self.labels = LabelSpace(("short", "long"), (kind,), "BIO")
        self.batcher, self.asked = SimpleNamespace(closing=False), []

    async def see(self, rows):
        self.asked.append(list(rows))
        if self.busy:
            raise Busy("busy: come again", self.busy.pop())
        return [(row, None if isinstance(row, UnreadableRow) else self.said(row)) for row in rows]

    def said(self, row):
        words = [Word(start, end, "O", 0.5) for start, end in row.offsets]
        found = [Entity(*row.offsets[0], row.words[0], self.kind, 0.8)] if row.words else []
        return Prediction(row.text, "short", {"short": 0.9, "long": 0.1}, found, np.ones(2), words)


class Models:
    def __init__(self, main, other=None):
        self.main, self.other, self.names = main, other, [other.name] if other else []

    async def open(self, name):
        if name not in self.names:
            raise InputError(f"{name} is none of the models")
        return self.other


def made(service=None, other=None, neighbours=None):
    return PageController(Models(service or Service(), other), neighbours, LIMITS)


def kept(page, key):
    return page.results.get(key)


def test_a_text_is_asked_once_and_its_threshold_never_again():
    page = made()
    content, key = asyncio.run(page.text("anna won", "", 0.0))
    assert content.count("<mark") == 1 and "2 words with tag" in content
    above, same = asyncio.run(page.above(key, 0.81))
    assert same == key and "<mark" not in above and "1 entity below 0.81 not shown" in above
    assert len(page.models.main.asked) == 1
    (said,) = kept(page, key).models[0].predictions
    assert said.embedding is None and len(said.words) == 2


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (" \n", "There is no text yet"),
        ("x" * 41, "The text has 41 characters; at most 40 are read."),
        ("a\ud800", "not valid UTF-8"),
    ],
)
def test_a_text_that_can_not_be_asked_is_a_line_and_no_question(text, line):
    page = made()
    content, key = asyncio.run(page.text(text, "", 0.0))
    assert line in content and 'role="alert"' in content and key == "" and not page.models.main.asked


def test_a_files_rows_are_asked_in_batches_and_a_bad_one_keeps_its_place(put):
    lines = ["anna won", "", "%s" % ("b " * 15), "c " * 15, *"defghij", "\udcff"]
    path = put("drop/rows.txt", "\n".join(lines).encode("utf-8", "surrogateescape"))
    page, seen = made(), []
    content, key = asyncio.run(page.file(path, "", 0.0, lambda *told: seen.append(told)))
    asked = page.models.main.asked
    assert [
        row.text for chunk in asked for row in chunk[: len(chunk)] if not isinstance(row, UnreadableRow)
    ] == lines[:-1]
    for chunk in asked:
        read = [row for row in chunk if not isinstance(row, UnreadableRow)]
        assert len(chunk) <= 4 and (len(chunk) == 1 or sum(map(estimate_tokens, read)) <= 30)
    assert [at for at, _, _ in seen] == [sum(map(len, asked[:n])) for n in range(len(asked))]
    assert {told[1:] for told in seen} == {(12, "main")}
    result = kept(page, key)
    assert result.file_name == "rows.txt" and result.models[0].predictions[-1] is None
    assert "rows.txt:12: " in content and "1 can’t be read" in content
    assert all(said is None or said.words is said.embedding is None for said in result.models[0].predictions)


def test_a_busy_model_is_waited_for_but_not_for_ever(monkeypatch):
    page = made(Service(busy=[0, 0, 0]))
    content, key = asyncio.run(page.text("anna won", "", 0.0))
    assert "<mark" in content and len(page.models.main.asked) == 4
    page.models.main.busy = [31]
    content, key = asyncio.run(page.text("anna won", "", 0.0))
    assert "busy: come again" in content and key == ""
    monkeypatch.setattr(controller, "_PATIENCE", 0.05)
    page.models.main.busy = [0.02] * 1000
    content, _ = asyncio.run(page.text("anna won", "", 0.0))
    assert "busy: come again" in content and page.models.main.busy


def test_a_model_that_was_left_is_not_waited_for():
    page = made(Service(busy=[1]))
    page.models.main.batcher.closing = True
    content, _ = asyncio.run(page.text("anna won", "", 0.0))
    assert "main is no longer loaded: ask again." in content


def test_another_model_is_asked_about_what_is_shown_and_can_be_left_again():
    main, other = Service(), Service("runs/b/model", kind="NAME")
    page = made(main, other)
    _, key = asyncio.run(page.text("anna won", "", 0.0))
    content, same = asyncio.run(page.compared(key, other.name, 0.0, lambda *told: None))
    assert same == key and len(main.asked) == len(other.asked) == 1
    assert content.count("only here") == 2 and "1 entity only in <bdi>runs/b/model</bdi>" in content
    assert len(kept(page, key).models[1].predictions[0].words) == 2
    content, _ = asyncio.run(page.compared(key, "", 0.0, lambda *told: None))
    assert "only here" not in content and len(kept(page, key).models) == 1
    content, _ = asyncio.run(page.text("anna won", other.name, 0.0))
    assert content.count("only here") == 2
    content, nothing = asyncio.run(page.compared(key, "runs/c/model", 0.0, lambda *told: None))
    assert "none of the models" in content and nothing == ""


def test_a_result_that_was_forgotten_is_said_to_be():
    content, key = asyncio.run(made().above("gone", 0.5))
    assert "no longer kept" in content and key == ""


def test_nearest_sentences_say_how_many_were_searched():
    found = [SimpleNamespace(text="<i>", label="short", similarity=0.5)]
    neighbours = SimpleNamespace(total=1000, done=10, nearest=lambda embedding: found)
    page = made(neighbours=neighbours)
    content, _ = asyncio.run(page.text("anna won", "", 0.0))
    assert "Of the first 10 of 1,000 training sentences" in content and "cosine 0.500" in content
    assert "&lt;i&gt;" in content and "<i>" not in content
    neighbours.done = 1000
    content, _ = asyncio.run(page.text("anna won", "", 0.0))
    assert "Of the first" not in content
