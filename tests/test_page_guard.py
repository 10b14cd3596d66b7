"""Only what the page needs of gradio's server can be reached, and every answer has its headers."""

import asyncio

import pytest

from multitask.page_guard import Headers, Narrow


async def behind(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": b"inside"})


def answer(app, path: str) -> tuple[int, dict[bytes, bytes], bytes]:
    sent = []

    async def send(event):
        sent.append(event)

    asyncio.run(app({"type": "http", "path": path, "root_path": ""}, None, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/proxy=http://example.org/",
        "/gradio_api/run/predict",
        "/gradio_api/call/predict",
        "/gradio_api/vibe-edit/",
        "/gradio_api/queue/join/../file=x",
        "/monitoring",
        "/gradio_api/runs",
        "//gradio_api/file=x",
        "/assets\n/../x",
    ],
)
def test_what_the_page_does_not_need_is_closed(path):
    assert answer(Narrow(behind), path)[::2] == (404, b'{"detail":"Not Found"}')


@pytest.mark.parametrize(
    "path", ["/", "/theme.css", "/assets/index-1.js", "/gradio_api/queue/join", "/gradio_api/heartbeat/ab1"]
)
def test_what_it_needs_is_open(path):
    assert answer(Narrow(behind), path)[::2] == (200, b"inside")


def test_every_answer_keeps_the_browser_to_this_server():
    for app in (behind, Narrow(behind)):
        status, headers, _ = answer(Headers(app), "/monitoring")
        policy = dict(part.split(" ", 1) for part in headers[b"content-security-policy"].decode().split("; "))
        assert policy["default-src"] == "'self'" and policy["frame-ancestors"] == "'none'"
        assert not any("http" in sources or "*" in sources for sources in policy.values())
        assert headers[b"x-content-type-options"] == b"nosniff"
        assert headers[b"referrer-policy"] == b"no-referrer"
        assert status == 404 or headers[b"x-own"] == b"1"
