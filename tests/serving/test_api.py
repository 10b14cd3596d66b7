"""The HTTP API over a stand-in for the model: responses, refusals, metrics."""

import asyncio
import json
import re

import numpy as np
import pytest
from local_api import LocalWorker, run
from standing_in import Reader

from multitask.data.texts import rows_from_texts
from multitask.inference.writers import json_line
from multitask.serving.limits import Limits
from multitask.serving.worker import WorkerEnded

LIMITS = Limits(text_characters=50, texts=20, body_bytes=2_000, body_seconds=0.05, waiting_cost=150)


def request(method, path, **options):
    """The response to one request."""

    async def main(client, models):
        return await client.request(method, path, **options)

    return run(main, LIMITS)


def test_predictions_equal_the_rows_that_task_5_writes():
    texts = ["anna and anna!", "", "a < b & c", "x" * 51, "\ud800", "ça va, 中文 🙂"]
    rows = list(rows_from_texts(texts, 50))
    predictions = [Reader().predict_examples([row])[0] if hasattr(row, "words") else None for row in rows]
    body = json.dumps({"texts": texts}).encode()
    answer = request("POST", "/predict", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert answer.json() == {"predictions": [json.loads(json_line(*pair)) for pair in zip(rows, predictions)]}
    errors = [row.get("error") for row in answer.json()["predictions"]]
    assert errors[3:5] == [
        "text 4: 51 characters; at most 50 are read",
        "text 5: the text is not valid UTF-8",
    ]
    assert [error is None for error in errors] == [True, True, True, False, False, True]


def test_embeddings_are_exact_and_in_order():
    answer = request("POST", "/embed", json={"texts": ["anna", "x" * 51, "it fails", "b"]}).json()
    expected = [
        Reader().predict_examples([row], embeddings=True)[0].embedding
        for row in rows_from_texts(["anna", "b"])
    ]
    np.testing.assert_array_equal(np.float32([answer["embeddings"][at] for at in (0, 3)]), expected)
    assert answer["embeddings"][1:3] == [None, None]
    assert answer["errors"] == [
        "text 2: 51 characters; at most 50 are read",
        "text 3: the model failed on this text: MemoryError",
    ]
    assert "errors" not in request("POST", "/embed", json={"texts": ["anna"]}).json()


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
def test_an_invalid_request_gets_one_line_with_the_reason(body, status, reason):
    answer = request("POST", "/predict", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert list(answer.json()) == ["detail"] and reason in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "json"])
def test_a_body_that_a_form_of_another_site_could_send_is_refused(kind):
    answer = request("POST", "/predict", content=b'{"texts": []}', headers={"Content-Type": kind})
    assert answer.status_code == 422
    assert answer.json()["detail"] == "body: the Content-Type must be application/json"


def test_a_slow_body_is_refused():
    async def slow():
        yield b'{"texts": '
        await asyncio.sleep(0.5)
        yield b'["a"]}'

    answer = request("POST", "/predict", content=slow(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["detail"]) == (408, "the request's body did not arrive in time")


def test_a_busy_server_refuses_requests_and_names_a_time_to_retry():
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
        health = await client.get("/health")
        assert (health.status_code, health.json()["detail"]) == (503, "the server is stopping")

    run(main, LIMITS, LocalWorker(go))


def test_metrics_count_requests_and_texts_and_give_quantiles_of_latency():
    async def main(client, models):
        for texts in ([], ["a"], ["b", "c"]):
            await client.post("/predict", json={"texts": texts})
        await client.post("/embed", json={"texts": [1]})
        return (await client.get("/metrics")).text

    text = run(main, LIMITS)
    assert 'multitask_requests_total{path="/predict",status="200"} 3.0\n' in text
    assert 'multitask_requests_total{path="/embed",status="422"} 1.0\n' in text
    assert "multitask_texts_total 3.0\n" in text and "multitask_batches_total 2.0\n" in text
    quantiles = re.findall(r'request_seconds\{path="/predict",quantile="(.*?)"\} (.*)\n', text)
    assert [name for name, _ in quantiles] == ["0.5", "0.9", "0.95", "0.99"]
    values = [float(value) for _, value in quantiles]
    total = float(re.search(r'request_seconds_sum\{path="/predict"\} (.*)\n', text)[1])
    assert 0 < values[0] <= values[-1] <= total
    assert 'multitask_request_seconds_count{path="/predict"} 3.0\n' in text


def test_health_names_the_model_or_explains_how_to_train_one():
    assert request("GET", "/health").json() == {
        "status": "ok",
        "model": "runs/x/model",
        "classes": ["calm", "loud"],
        "types": ["PER"],
    }

    async def main(client, models):
        return [await client.get("/health"), await client.post("/predict", json={"texts": ["a"]})]

    for answer in run(main, LIMITS, trained=False):
        assert answer.status_code == 503
        assert "python task_4.py trains one" in answer.json()["detail"]


def test_an_ended_model_process_gives_503_until_it_answers_again():
    class EndedWorker(LocalWorker):
        ended = False

        async def run(self, items):
            if not self.ended:
                self.ended = True
                raise WorkerEnded("the model's process has ended (signal 9)")
            return await super().run(items)

    async def main(client, models):
        refused = await client.post("/predict", json={"texts": ["a"]})
        health = await client.get("/health")
        while (await client.get("/health")).status_code != 200:
            await asyncio.sleep(0.001)
        return refused, health, await client.post("/predict", json={"texts": ["a"]})

    refused, health, answer = run(main, LIMITS, EndedWorker())
    for one in (refused, health):
        assert one.status_code == 503 and int(one.headers["retry-after"]) >= 1
        assert one.json()["detail"] == "the model's process has ended (signal 9); it is being restarted"
    assert answer.status_code == 200
