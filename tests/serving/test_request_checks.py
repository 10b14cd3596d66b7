"""Middleware on requests: another site's page sends nothing, and bodies are limited, alone and together."""

import asyncio
import json

import httpx
import pytest

from multitask.serving.batcher import RequestTooLarge
from multitask.serving.limits import Limits
from multitask.serving.request_checks import BodyLimit, SameOrigin, parse_json

LIMITS = Limits(body_bytes=100, bodies_bytes=150, body_seconds=0.1)


async def echo(scope, receive, send):
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def client_of(app) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server:7860")


def request(app, method="POST", **options) -> httpx.Response:
    async def main():
        async with client_of(app) as client:
            return await client.request(method, "/", **options)

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),  # a program
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://server:7860"}, True),
        ({"Sec-Fetch-Site": "none"}, True),  # typed by the user
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://server:80"}, False),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy"}, True),
        ({"Origin": "http://server:7860"}, True),  # an old browser
        ({"Origin": "http://SERVER:7860"}, True),
        ({"Origin": "http://server:7861"}, False),
        ({"Origin": "http://evil.org"}, False),
        ({"Origin": "http://server:7860.evil.org"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://[bad"}, False),
    ],
)
def test_only_the_servers_own_pages_and_programs_may_post(headers, allowed):
    app = SameOrigin(echo)
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert request(app, method, headers=headers, content=b"x").status_code == (200 if allowed else 403)
    assert request(app, "GET", headers=headers).status_code == 200


def test_a_body_is_refused_before_it_is_read_if_it_announces_too_much():
    async def endless():
        yield b"x"
        await asyncio.Event().wait()

    app = BodyLimit(echo, ("/",), LIMITS)
    answer = request(app, content=endless(), headers={"Content-Length": "101"})
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")
    assert request(app, content=b"x" * 101).status_code == 413
    assert request(app, content=b"x" * 100).content == b"x" * 100


def test_bodies_are_limited_together_and_leave_room_when_they_have_ended():
    go = asyncio.Event()

    async def waiting(scope, receive, send):
        await go.wait()
        await echo(scope, receive, send)

    async def pieces():
        for _ in range(8):
            yield b"x" * 10

    async def main():
        app = BodyLimit(waiting, ("/",), LIMITS)
        async with client_of(app) as client:
            first = asyncio.create_task(client.post("/", content=b"x" * 80))
            while not app.held:
                await asyncio.sleep(0.001)
            refused = [await client.post("/", content=content) for content in (b"x" * 80, pieces())]
            go.set()
            assert [answer.status_code for answer in (await first, *refused)] == [200, 503, 503]
            assert refused[0].headers["retry-after"] and app.held == 0
            assert (await client.post("/", content=pieces())).status_code == 200
            slow = await client.post("/", content=b"", headers={"Content-Length": "-1"})
            assert slow.status_code == 200 and app.held == 0

    asyncio.run(main())


def test_json_with_too_many_values_is_not_parsed():
    limits = Limits(body_marks=20)
    for value in ({"texts": ["a"] * 17}, {"a": {"b": [{}]}}, [[[]]]):
        assert parse_json(json.dumps(value).encode(), limits) == value
    for value in (["a"] * 30, {str(i): 1 for i in range(12)}, [[]] * 15, [{}] * 15):
        with pytest.raises(RequestTooLarge, match="more than 20 commas, colons and brackets"):
            parse_json(json.dumps(value).encode(), limits)
