"""The training sentences nearest to a text, and embedding them while the model is idle."""

import asyncio
import json

import numpy as np
import pytest

from multitask.common.errors import InputError
from multitask.data.examples import example_from_text
from multitask.data.texts import UnreadableRow
from multitask.serving.batcher import ServerBusy
from multitask.serving.limits import Limits
from multitask.serving.page.neighbours import NearestSentences, training_sentences
from multitask.serving.worker import WorkerEnded


class Embedder:
    """A service with a random embedding for each text; busy or without a process at two requests of three."""

    def __init__(self):
        self.limits, self.batcher, self.times, self.sizes = Limits(waiting_cost=400), self, 0, []
        self.rows = 0

    async def embed(self, rows):
        self.times += 1
        if self.times % 3:
            raise (ServerBusy, WorkerEnded)[self.times % 3 - 1]("not now")
        self.sizes.append(len(rows))
        return [UnreadableRow("no") if row.text == "none" else self.of(row.text) for row in rows]

    @staticmethod
    def of(text):
        return np.random.default_rng(sum(map(ord, text))).normal(size=6).astype(np.float32) * 7


def test_the_nearest_sentences_have_the_highest_cosine():
    texts = [f"sentence {'x' * number}" for number in range(60)] + ["none", "long " * 500, "last"]
    rows = [example_from_text(text) for text in texts]
    for number, row in enumerate(rows):
        row.label = f"class {number % 3}"
    neighbours, service = NearestSentences(rows), Embedder()
    assert neighbours.nearest(service.of("anna")) == [] and (neighbours.done, neighbours.total) == (0, 63)
    asyncio.run(neighbours.fill(service))
    assert max(service.sizes) > 1 and neighbours.done == 62  # one is too long for the queue
    query = service.of("anna")
    expected = []
    for number, text in enumerate(texts):
        if text != "none" and not text.startswith("long"):
            other = service.of(text)
            cosine = float(query @ other) / float(np.linalg.norm(query) * np.linalg.norm(other))
            expected.append((-cosine, text, f"class {number % 3}"))
    nearest, expected = neighbours.nearest(query, 7), sorted(expected)[:7]
    assert [(one.text, one.label) for one in nearest] == [(text, label) for _, text, label in expected]
    cosines = [-negative for negative, _, _ in expected]
    np.testing.assert_allclose([one.similarity for one in nearest], cosines, rtol=1e-5)


def test_training_sentences_are_the_runs_with_their_classes(tmp_path, rows, write_rows):
    path = write_rows("train.jsonl", [*rows, {"text": 3}])
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "config.yml").write_text(f"data:\n  train: {json.dumps(path)}\n")
    sentences = list(training_sentences(str(tmp_path / "run" / "model")))
    assert [row.text for row in sentences] == [row.get("text") or " ".join(row["tokens"]) for row in rows]
    assert [row.label for row in sentences] == [row.get("label") for row in rows]
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(InputError, match=r"train\.jsonl"):
        list(training_sentences(str(tmp_path / "run" / "model")))
