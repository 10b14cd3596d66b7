"""The training sentences nearest to another, found while nobody asks."""

import asyncio
import json

import numpy as np
import pytest

from multitask.common.errors import InputError
from multitask.data.rows import example_from_text
from multitask.data.texts import UnreadableRow
from multitask.serving.batcher import Busy
from multitask.serving.limits import Limits
from multitask.serving.page.neighbours import NearestSentences, training_sentences


class Embedder:
    """A service whose embeddings are drawn once for each text; busy every other time."""

    def __init__(self):
        self.limits, self.batcher, self.times, self.sizes = Limits(waiting_cost=400), self, 0, []
        self.rows = 0

    async def embed(self, rows):
        self.times += 1
        if self.times % 2:
            raise Busy("busy")
        self.sizes.append(len(rows))
        return [UnreadableRow("no") if row.text == "none" else self.of(row.text) for row in rows]

    @staticmethod
    def of(text):
        return np.random.default_rng(sum(map(ord, text))).normal(size=6).astype(np.float32) * 7


def test_the_nearest_are_those_of_the_highest_cosine():
    texts = [f"sentence {'x' * number}" for number in range(60)] + ["none", "long " * 500, "last"]
    rows = [example_from_text(text) for text in texts]
    for number, row in enumerate(rows):
        row.label = f"class {number % 3}"
    found, service = NearestSentences(rows), Embedder()
    assert found.nearest(service.of("anna")) == [] and (found.done, found.total) == (0, 63)
    asyncio.run(found.fill(service))
    assert max(service.sizes) > 1 and found.done == 62  # all but one that is longer than what may wait
    query = service.of("anna")
    slow = []
    for number, text in enumerate(texts):
        if text != "none" and not text.startswith("long"):
            other = service.of(text)
            cosine = float(query @ other) / float(np.linalg.norm(query) * np.linalg.norm(other))
            slow.append((-cosine, text, f"class {number % 3}"))
    nearest = found.nearest(query, 7)
    assert [(each.text, each.label) for each in nearest] == [each[1:] for each in sorted(slow)[:7]]
    np.testing.assert_allclose(
        [each.similarity for each in nearest], [-each[0] for each in sorted(slow)[:7]], rtol=1e-5
    )


def test_training_sentences_are_those_of_the_run_with_their_classes(tmp_path, rows, write_rows):
    path = write_rows("train.jsonl", [*rows, {"text": 3}])
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "config.yml").write_text(f"data:\n  train: {json.dumps(path)}\n")
    found = list(training_sentences(str(tmp_path / "run" / "model")))
    assert [row.text for row in found] == [row.get("text") or " ".join(row["tokens"]) for row in rows]
    assert [row.label for row in found] == [row.get("label") for row in rows]
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(InputError, match=r"train\.jsonl"):
        list(training_sentences(str(tmp_path / "run" / "model")))
