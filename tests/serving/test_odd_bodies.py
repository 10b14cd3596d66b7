"""Bodies of a megabyte that are JSON and not what is wanted: refused in a short line, and at once."""

import asyncio
import sys
import time

import pytest
from local_api import run

from benchmarks.odd_requests import MEGABYTE, other_json
from multitask.serving.limits import Limits
from multitask.serving.server import SWITCH_SECONDS

KINDS = other_json()
GAP = 0.05  # seconds for which a request may hold the event loop


async def send(client, body: bytes):
    return await client.post("/predict", content=body, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("name", KINDS)
def test_json_of_another_form_is_refused_in_a_short_line_whatever_its_size(name):
    assert len(KINDS[name]) <= MEGABYTE

    async def main(client, models):
        return await send(client, KINDS[name])

    answer = run(main, Limits())
    if name in ("escapes", "halves"):  # is a text, but too long
        assert "characters; at most 10,000 are read" in answer.json()["predictions"][0]["error"]
    elif name == "most words":
        assert len(answer.json()["predictions"]) == 1_000
    else:
        assert answer.status_code in (400, 413, 422)
        assert 0 < len(answer.json()["detail"]) < 1_500 and "\n" not in answer.json()["detail"]


@pytest.mark.load
@pytest.mark.parametrize("name", {*KINDS} - {"most words"})  # which the stand-in reads in the event loop
def test_no_body_holds_the_event_loop(name, monkeypatch):
    before = sys.getswitchinterval()

    async def main(client, models):
        gaps: list[float] = []

        async def tick():
            while True:
                began = time.perf_counter()
                await asyncio.sleep(0.001)
                gaps.append(time.perf_counter() - began)

        await send(client, b"{}")  # imports and caches
        ticking = asyncio.create_task(tick())
        await asyncio.sleep(0.01)
        await send(client, KINDS[name])
        await asyncio.sleep(0.01)
        ticking.cancel()
        return max(gaps)

    sys.setswitchinterval(SWITCH_SECONDS)  # as the server does
    try:
        assert min(run(main, Limits()) for _ in range(3)) < GAP
    finally:
        sys.setswitchinterval(before)
