"""Only the paths that the page needs can be reached, and every response has the security headers."""

import asyncio
import json

import pytest

from multitask.serving.page.path_filter import JOIN, GradioPathFilter, SecurityHeaders


async def inner(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": b"inside"})


async def echo(scope, receive, send):
    event = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": event["body"]})


def answer(app, path: str, body: bytes = b"{}") -> tuple[int, dict[bytes, bytes], bytes]:
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(event):
        sent.append(event)

    asyncio.run(app({"type": "http", "path": path, "root_path": ""}, receive, send))
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
        "/gradio_api/reset",
        "/monitoring",
        "/gradio_api/runs",
        "//gradio_api/file=x",
        "/assets\n/../x",
    ],
)
def test_paths_that_the_page_does_not_need_are_refused(path):
    assert answer(GradioPathFilter(inner, "uploads"), path)[::2] == (404, b'{"detail":"Not Found"}')


@pytest.mark.parametrize(
    "path", ["/", "/theme.css", "/assets/index-1.js", "/gradio_api/queue/join", "/gradio_api/heartbeat/ab1"]
)
def test_paths_that_the_page_needs_are_allowed(path):
    assert answer(GradioPathFilter(inner, "uploads"), path)[::2] == (200, b"inside")


def test_an_event_can_name_uploaded_files_only(tmp_path):
    def event(path, **also) -> bytes:
        file = {"path": path, "meta": {"_type": "gradio.FileData"}, **also}
        return json.dumps({"data": [[{"deep": file}], "", 0], "session_hash": "a"}).encode()

    uploads = tmp_path / "uploads"
    (uploads / "hash").mkdir(parents=True)
    secret = tmp_path / "secret" / "file.txt"
    (uploads / "hash" / "link.txt").symlink_to(secret)
    app = GradioPathFilter(echo, str(uploads))
    good = event(f"{uploads}/hash/rows.jsonl")
    assert answer(app, JOIN, good)[::2] == (200, good)
    assert answer(app, JOIN, b'{"data": ["a text with a \\"path\\": /etc/passwd"]}')[0] == 200
    for path in (
        str(secret),
        f"{uploads}/hash/../../secret/file.txt",
        f"{uploads}/hash/link.txt",
        f"{uploads}/file.txt",
        f"{uploads}/hash/deeper/file.txt",
        "https://example.org/hash/file",
        "",
        None,
        7,
        ["a"],
    ):
        assert answer(app, JOIN, event(path))[0] == 403, path
    for body in (b"", b"no JSON", b"[" * 100_000, b"\xff"):
        assert answer(app, JOIN, body)[0] == 403
    twice = event(str(secret)).replace(b'"path"', b'"path": "%s", "path"' % str(uploads / "a/b").encode())
    assert answer(app, JOIN, twice)[0] == 403
    twice = b'{"a": {"path": "%s", "path": "%s"}}' % (str(secret).encode(), str(uploads / "a/b").encode())
    assert answer(app, JOIN, twice)[2].count(b"path") == 1


def test_every_response_restricts_the_browser_to_this_server():
    for app in (inner, GradioPathFilter(inner, "uploads")):
        status, headers, _ = answer(SecurityHeaders(app), "/monitoring")
        policy = dict(part.split(" ", 1) for part in headers[b"content-security-policy"].decode().split("; "))
        assert policy["default-src"] == "'self'" and policy["frame-ancestors"] == "'none'"
        assert not any("http" in sources or "*" in sources for sources in policy.values())
        assert headers[b"x-content-type-options"] == b"nosniff"
        assert headers[b"referrer-policy"] == b"no-referrer"
        assert status == 404 or headers[b"x-own"] == b"1"
