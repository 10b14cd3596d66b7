"""The HTTP API, in one process with what stands in for a model: every answer, every refusal, every metric."""

import asyncio
import json
import re

import httpx
import numpy as np
import pytest
from standing_in import Reader

from multitask.data.texts import rows_from_texts
from multitask.inference.writers import json_line
from multitask.serving.api import PATHS, BodyLimit, application
from multitask.serving.limits import Limits
from multitask.serving.metrics import Metrics
from multitask.serving.service import Models, Service
from multitask.serving.worker import answer_batch

LIMITS = Limits(text_characters=50, texts=20, body_bytes=2_000, body_seconds=0.05, waiting_cost=150)


class Here:
    """An engine without a process; waits for `go` where there is one."""

    def __init__(self, go=None):
        self.go = go

    def labels(self):
        return Reader.labels

    async def run(self, items):
        if self.go:
            await self.go.wait()
        return answer_batch(Reader(), items)


def asked(main, engine=None, trained=True):
    """Call main(client, models) with a client of an application over the Reader."""

    async def within():
        models = Models(
            Service("runs/x/model", engine or Here(), LIMITS) if trained else None, [], None, LIMITS
        )
        metrics = Metrics(PATHS, models)
        app = metrics.around(BodyLimit(application(models, LIMITS, metrics, "http://here"), PATHS, LIMITS))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            async with asyncio.timeout(20):
                return await main(client, models)

    return asyncio.run(within())


def one(method, path, **how):
    """The answer to one request."""

    async def main(client, models):
        return await client.request(method, path, **how)

    return asked(main, **({"trained": how.pop("trained")} if "trained" in how else {}))


def test_predictions_are_the_rows_that_task_5_writes():
    texts = ["anna and anna!", "", "a < b & c", "x" * 51, "\ud800", "ça va, 中文 🙂"]
    rows = list(rows_from_texts(texts, 50))
    said = [Reader().predict_examples([row])[0] if hasattr(row, "words") else None for row in rows]
    body = json.dumps({"texts": texts}).encode()
    answer = one("POST", "/predict", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert answer.json() == {"predictions": [json.loads(json_line(*each)) for each in zip(rows, said)]}
    errors = [row.get("error") for row in answer.json()["predictions"]]
    assert errors[3:5] == [
        "text 4: 51 characters; at most 50 are read",
        "text 5: the text is not valid UTF-8",
    ]
    assert [error is None for error in errors] == [True, True, True, False, False, True]


def test_embeddings_keep_their_places_and_their_digits():
    answer = one("POST", "/embed", json={"texts": ["anna", "x" * 51, "it fails", "b"]}).json()
    expected = [
        Reader().predict_examples([row], embeddings=True)[0].embedding
        for row in rows_from_texts(["anna", "b"])
    ]
    np.testing.assert_array_equal(np.float32([answer["embeddings"][at] for at in (0, 3)]), expected)
    assert answer["embeddings"][1:3] == [None, None]
    assert answer["errors"] == [
        "text 2: 51 characters; at most 50 are read",
        "the model failed on this text: MemoryError",
    ]
    assert "errors" not in one("POST", "/embed", json={"texts": ["anna"]}).json()


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b'{"texts": ["a", 3]}', 422, "texts.1: Input should be a valid string"),
        (b'{"texts": [null]}', 422, "texts.0: Input should be a valid string"),
        (b'{"text": []}', 422, "texts: Field required; text: Extra inputs are not permitted"),
        (b'{"texts": ["a"', 422, "14: JSON decode error"),
        (b"", 422, "body: Field required"),
        (b'{"texts": ' + json.dumps([""] * 21).encode() + b"}", 422, "at most 20 items"),
        (b'{"texts": ' + json.dumps([1] * 9).encode() + b"}", 422, "... and 6 more"),
        (b'{"texts": ["' + b"a" * 2_000 + b'"]}', 413, "more than 2,000 bytes; send fewer texts at once"),
        (
            b'{"texts": ' + json.dumps(["a b c d e f g h"] * 20).encode() + b"}",
            413,
            "about 180 tokens in one request",
        ),
    ],
)
def test_what_can_not_be_used_gets_a_line_that_says_why(body, status, reason):
    answer = one("POST", "/predict", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert list(answer.json()) == ["detail"] and reason in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]


def test_a_body_that_does_not_come_is_not_waited_for():
    async def slow():
        yield b'{"texts": '
        await asyncio.sleep(0.5)
        yield b'["a"]}'

    answer = one("POST", "/predict", content=slow(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["detail"]) == (408, "the request's body did not come")


def test_a_busy_server_says_so_and_when_to_come_again():
    go = asyncio.Event()

    async def main(client, models):
        texts = {"texts": ["a b c d e f g h"] * 10}
        first = asyncio.create_task(client.post("/predict", json=texts))
        while not models.main.batcher.rows:
            await asyncio.sleep(0.001)
        text = (await client.get("/metrics")).text
        assert "multitask_queue_length 10.0\n" in text and "multitask_queue_tokens 90.0\n" in text
        assert "multitask_requests_in_progress 1.0\n" in text
        refused = await client.post("/embed", json=texts)
        assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
        assert refused.json()["detail"].startswith("busy: too many texts are waiting")
        go.set()
        assert len((await first).json()["predictions"]) == 10
        await models.drain()
        stopping = await client.get("/health")
        assert (stopping.status_code, stopping.json()["detail"]) == (503, "the server is stopping")

    asked(main, Here(go))


def test_metrics_count_every_request_and_text_and_give_quantiles_of_their_times():
    async def main(client, models):
        for texts in ([], ["a"], ["b", "c"]):
            await client.post("/predict", json={"texts": texts})
        await client.post("/embed", json={"texts": [1]})
        return (await client.get("/metrics")).text

    text = asked(main)
    assert 'multitask_requests_total{path="/predict",status="200"} 3.0\n' in text
    assert 'multitask_requests_total{path="/embed",status="422"} 1.0\n' in text
    assert "multitask_texts_total 3.0\n" in text and "multitask_batches_total 2.0\n" in text
    quantiles = re.findall(r'request_seconds\{path="/predict",quantile="(.*?)"\} (.*)\n', text)
    assert [name for name, _ in quantiles] == ["0.5", "0.9", "0.95", "0.99"]
    values = [float(value) for _, value in quantiles]
    total = float(re.search(r'request_seconds_sum\{path="/predict"\} (.*)\n', text)[1])
    assert 0 < values[0] <= values[-1] <= total
    assert 'multitask_request_seconds_count{path="/predict"} 3.0\n' in text


def test_health_says_what_is_served_and_without_a_model_how_to_make_one():
    assert one("GET", "/health").json() == {
        "status": "ok",
        "model": "runs/x/model",
        "classes": ["calm", "loud"],
        "types": ["PER"],
    }

    async def main(client, models):
        return [await client.get("/health"), await client.post("/predict", json={"texts": ["a"]})]

    for answer in asked(main, trained=False):
        assert answer.status_code == 503
        assert "python task_4.py trains one" in answer.json()["detail"]


def test_a_model_whose_process_has_ended_is_said_to_have():
    class Gone(Here):
        async def run(self, items):
            from multitask.serving.worker import WorkerEnded

            raise WorkerEnded("the model's process has ended (signal 9)")

    async def main(client, models):
        return await client.post("/predict", json={"texts": ["a"]})

    answer = asked(main, Gone())
    assert (answer.status_code, answer.json()["detail"]) == (503, "the model's process has ended (signal 9)")
