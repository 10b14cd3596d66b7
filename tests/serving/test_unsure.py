"""task_6.py --accuracy and --precision: the API and the page answer only where the model is sure."""

import asyncio
import json
import multiprocessing
from functools import partial

import pytest
from unsure_models import TEXTS, UNSURE, put_thresholds, unsure_copy

import task_6
from benchmarks.http_load import Client, post
from benchmarks.server import TASK_6, serving
from multitask.common.errors import InputError
from multitask.data.texts import rows_from_texts
from multitask.inference.predictor import Predictor
from multitask.serving.limits import Limits
from multitask.serving.page.controller import PageController
from multitask.serving.page.results import render_download
from multitask.serving.service import Models
from multitask.serving.worker import load_predictor

SHARES = {"accuracy": 0.7, "precision": 0.8}


@pytest.fixture
def unsure(trained, tmp_path):
    return unsure_copy(trained, tmp_path / "model")


def sure_rows(folder) -> list[dict]:
    """The rows for TEXTS, without what is unsure."""
    predictor = Predictor.from_pretrained(folder, "cpu")
    predictor.answer_only_if(**SHARES)
    return [prediction.to_dict() for prediction in predictor.predict(TEXTS)]


def test_the_api_answers_only_where_the_model_is_sure(unsure, tmp_path):
    async def ask(port):
        client = Client(port)
        answer = await client.ask(post("/predict", {"texts": TEXTS}))
        client.leave()
        return answer.json()["predictions"]

    options = [f"--{name}={share}" for name, share in SHARES.items()]
    with serving(tmp_path, str(unsure), words=(*TASK_6, *options)) as server:
        rows = asyncio.run(ask(server.port))
        messages = server.messages.read_text()
    expected = sure_rows(unsure)
    for row, right in zip(rows, expected, strict=True):
        assert row["label"] == right["label"]
        assert row["probabilities"] == pytest.approx(right["probabilities"], abs=2e-5)
        assert [(e["start"], e["label"]) for e in row["entities"]] == [
            (e["start"], e["label"]) for e in right["entities"]
        ]
    assert sum(row["label"] is None for row in rows) == UNSURE + 1  # one text is blank
    assert "a class below 0." in messages and "an entity below 0." in messages


def test_a_model_to_compare_with_answers_only_where_it_is_sure(unsure, trained):
    async def main():
        names = [str(unsure), str(trained)]
        models = Models(None, names, Limits(), partial(load_predictor, **SHARES))
        service = await models.open(str(unsure))
        rows = await service.predict_json(list(rows_from_texts(TEXTS)))
        with pytest.raises(InputError, match="has no thresholds for classes"):
            await models.open(str(trained))
        return [json.loads(row) for row in rows]

    assert [row["label"] for row in asyncio.run(main())] == [row["label"] for row in sure_rows(unsure)]
    assert not multiprocessing.active_children()


def test_the_page_says_that_a_class_is_unsure(unsure):
    async def main():
        models = Models(None, [str(unsure)], Limits(), partial(load_predictor, **SHARES))
        models.main = await models.open(str(unsure))
        page = PageController(models, None, Limits())
        lines, key = await page.show(page.predict_text("\n".join(TEXTS), "", lambda *_: None), 0)
        one, _ = await page.show(page.predict_text(unsure_text, "", lambda *_: None), 0)
        download = render_download(page.results.get(key), 0, "x.jsonl", 0)
        await models.other.close()
        return lines, one, download

    rows = [row for row in sure_rows(unsure) if row["text"]]
    unsure_text = next(row["text"] for row in rows if row["label"] is None)
    lines, one, download = asyncio.run(main())
    assert lines.count(">unsure</span>") == UNSURE and f"{UNSURE} texts without a class: unsure" in lines
    assert "Unsure: no class is probable enough." in one and "not trained" not in one
    assert one.count('class="bar"') == 2  # the probabilities are shown
    assert [json.loads(line)["label"] for line in download.splitlines()] == [row["label"] for row in rows]


def test_shares_that_the_model_can_not_promise_are_refused(shell, trained, tmp_path):
    folder = unsure_copy(trained, tmp_path / "model")
    put_thresholds(folder, 0.5, 0.5)
    for words, reason in (
        (["--model", trained, "--accuracy", "0.9"], f"accuracy: {trained} has no thresholds for classes"),
        (["--model", folder, "--precision", "0.9"], "precision 0.9: no threshold reaches it on the 20 found"),
        (["--accuracy", "0.9"], "no folder runs/latest/model"),
    ):
        ended = shell(task_6, *words, "--port", "0" if "--model" in words else "70000")
        assert ended.status == 2 and ended.err.startswith(f"error: {reason}"), ended.err
        assert ended.err.count("\n") == 1 and not multiprocessing.active_children()
