"""Requests of all kinds, what each is to be answered with, and many clients that send them."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from benchmarks.http_load import Answer, Client, get, post
from multitask.serving.limits import Limits

LIMITS = Limits()
WORDS = ["anna", "won", "in", "paris", "and", "the", "vote", "Annason", "winning", "match", "chip"]
NEAR = 2e-5  # of probabilities, whatever the number of texts that are read together
GONE = "gone"  # a client that did not wait


class Case(NamedTuple):
    """A request, and a check of its answer, which raises AssertionError."""

    name: str
    request: bytes
    check: Callable[[Answer], None]


def cases(predictor) -> list[Case]:
    """Good and bad requests of all sizes, with what `predictor` says of their texts."""
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=draw.choice((1, 3, 10, 60)))) for _ in range(60)]
    longest = ("anna won the match, " * LIMITS.text_characters)[: LIMITS.text_characters]
    texts += ["", " ", "\u200b", "émile ÉLU 🙂 中文", "9" * 300, longest]
    said = dict(zip(texts, predictor.predict(texts, embeddings=True)))
    bad = {longest + "x": f"{LIMITS.text_characters + 1:,} characters", "half \ud83d": "not valid UTF-8"}
    short = [text for text in texts if len(text) < 30]
    groups = {
        "one text": [[text] for text in texts],
        "no texts": [[]],
        "a thousand texts": [draw.choices(short, k=LIMITS.texts)],
        "bad texts among good ones": [[*short[:3], *bad, short[4]], list(bad)],
        "a text of a megabyte": [["x" * (LIMITS.body_bytes - 50)]],
    }
    bad["x" * (LIMITS.body_bytes - 50)] = "characters"
    found = []
    for name, lists in groups.items():
        for asked in lists:
            found.append(Case(name, post("/predict", {"texts": asked}), partial(rows_are, asked, said, bad)))
            found.append(Case(name, post("/embed", {"texts": asked}), partial(vectors_are, asked, said, bad)))
    return found + refused()


def refused() -> list[Case]:
    """What is not taken."""
    many = ["anna " * (LIMITS.waiting_cost // LIMITS.texts + 1)] * LIMITS.texts
    bodies = {
        "too many texts": (422, {"texts": ["anna"] * (LIMITS.texts + 1)}),
        "too many long texts": (413, {"texts": many}),
        "a large body": (413, {"texts": ["x" * LIMITS.body_bytes]}),
        "a large body that is no JSON": (413, b"[" * (2 * LIMITS.body_bytes)),
        "no JSON": (422, b'{"texts": ['),
        "deep JSON": (400, b'{"texts": ' + b"[" * (LIMITS.body_marks - 2)),
        "JSON of many values": (413, b'{"texts": ' + b"[" * LIMITS.body_marks),
        "an object of many keys": (413, {str(number): 8 for number in range(60_000)}),
        "no UTF-8": (400, b'{"texts": ["\xff"]}'),
        "not a list": (422, {"texts": "anna"}),
        "not texts": (422, {"texts": [1, None]}),
        "no texts at all": (422, {}),
        "something else": (422, ["anna"]),
    }
    return [
        Case(name, post(path, body), partial(is_problem, status))
        for name, (status, body) in bodies.items()
        for path in ("/predict", "/embed")
    ]


def rows_are(asked: Sequence[str], said: dict, bad: dict[str, str], answer: Answer) -> None:
    """/predict answered with what the Predictor says, or with why a text can't be read."""
    assert answer.status == 200, answer
    rows = answer.json()["predictions"]
    assert len(rows) == len(asked)
    for text, row in zip(asked, rows):
        if text in bad:
            assert bad[text] in row.pop("error")
            assert row == dict.fromkeys(("text", "label", "probabilities", "entities"))
        else:
            same_row(row, said[text]._replace(embedding=None).to_dict())


def same_row(row: dict, right: dict) -> None:
    """Every probability may be off by a rounding, and nothing else."""
    assert row.keys() == right.keys()
    assert (row["text"], row["label"]) == (right["text"], right["label"])
    near(row["probabilities"], right["probabilities"])
    assert len(row["entities"]) == len(right["entities"])
    for entity, other in zip(row["entities"], right["entities"]):
        near({"score": entity["score"]}, {"score": other["score"]})
        assert entity == {**other, "score": entity["score"]}


def near(found: dict[str, float] | None, right: dict[str, float] | None) -> None:
    if found is None or right is None:  # of a blank text
        assert found is right
        return
    assert found.keys() == right.keys()
    assert all(abs(found[name] - right[name]) <= NEAR for name in right), (found, right)


def vectors_are(asked: Sequence[str], said: dict, bad: dict[str, str], answer: Answer) -> None:
    """The same of /embed."""
    assert answer.status == 200, answer
    found = answer.json()
    reasons = found.get("errors", [])
    assert len(reasons) == sum(text in bad for text in asked)
    assert len(found["embeddings"]) == len(asked)
    for text, vector in zip(asked, found["embeddings"]):
        if text in bad:
            assert vector is None
            assert bad[text] in reasons.pop(0)
        else:
            assert np.abs(np.array(vector) - said[text].embedding).max() <= 5 * NEAR


def is_problem(status: int, answer: Answer) -> None:
    """One of these, with a reason in a line."""
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/json"
    reason = answer.json()["detail"]
    assert reason and "\n" not in reason
    if status == 503:
        assert int(answer.headers["retry-after"]) >= 1


async def visit(port: int, kinds: dict[str, list[Case]], clients: int, seconds: float) -> Counter:
    """So many clients, each of which sends one thing after the other; some leave in the middle of it → how
    many requests of which name had which status."""
    seen: Counter = Counter()

    async def come(number: int) -> None:
        draw, client = random.Random(number), Client(port)
        while time.perf_counter() < end:
            case, how = draw.choice(kinds[draw.choice(list(kinds))]), draw.random()
            if how < 0.1:  # in the middle of a request, or before the answer
                part = case.request if how < 0.05 else case.request[: draw.randrange(len(case.request))]
                await client.send(part)
                await asyncio.sleep(draw.random() / 20)
                client.leave()
                client = Client(port)
                seen[case.name, GONE] += 1
                continue
            answer = await client.ask(case.request)
            (partial(is_problem, 503) if answer.status == 503 else case.check)(answer)
            seen[case.name, answer.status] += 1
            if answer.status == 503:
                await asyncio.sleep(draw.random() / 5)
        client.leave()

    end = time.perf_counter() + seconds
    async with asyncio.timeout(seconds + 60), asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(come(number))
    return seen


async def measure(port: int) -> dict[str, float]:
    """/metrics: each name, with its labels, and its value."""
    client = Client(port)
    lines = (await client.ask(get("/metrics"))).body.decode().splitlines()
    client.leave()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}


async def idle(port: int) -> dict[str, float]:
    """Wait until nothing is left of what was asked → /metrics."""
    async with asyncio.timeout(60):
        while True:
            found = await measure(port)
            if not found["multitask_queue_length"] and not found["multitask_requests_in_progress"]:
                return found
            await asyncio.sleep(0.05)


def by_name(found: Sequence[Case]) -> dict[str, list[Case]]:
    kinds: dict[str, list[Case]] = {}
    for case in found:
        kinds.setdefault(case.name, []).append(case)
    return kinds
