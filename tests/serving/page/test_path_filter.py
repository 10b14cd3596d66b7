"""Only the paths that the page needs can be reached, and every response has the security headers."""

import asyncio
import json

import pytest

from multitask.serving.limits import Limits
from multitask.serving.page.path_filter import JOIN, UPLOAD, GradioPathFilter, SecurityHeaders


async def inner(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": b"inside"})


async def echo(scope, receive, send):
    event = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": event["body"]})


def answer(
    app, path: str, body: bytes = b'{"data": []}', method: str = "GET"
) -> tuple[int, dict[bytes, bytes], bytes]:
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(event):
        sent.append(event)

    asyncio.run(app({"type": "http", "path": path, "root_path": "", "method": method}, receive, send))
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
    assert answer(GradioPathFilter(inner, None, Limits()), path)[::2] == (404, b'{"detail":"Not Found"}')


@pytest.mark.parametrize(
    "path", ["/", "/theme.css", "/assets/index-1.js", "/gradio_api/queue/join", "/gradio_api/heartbeat/ab1"]
)
def test_paths_that_the_page_needs_are_allowed(path):
    assert answer(GradioPathFilter(inner, None, Limits()), path)[::2] == (200, b"inside")


class Uploaded:
    """In place of Uploads: holds one file."""

    def __init__(self, path: str):
        self.path = path

    def holds(self, path: object) -> bool:
        return path == self.path

    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"uploaded"})


def event(path, **also) -> bytes:
    file = {"path": path, "meta": {"_type": "gradio.FileData"}, **also}
    return json.dumps({"data": [[{"deep": file}], "", 0], "session_hash": "a"}).encode()


def test_an_event_can_name_uploaded_files_only():
    path = "/uploads/hash/rows.jsonl"
    app = GradioPathFilter(echo, Uploaded(path), Limits())
    assert answer(app, JOIN, event(path))[::2] == (200, event(path))
    assert answer(app, JOIN, b'{"data": ["a text with a \\"path\\": /etc/passwd"]}')[0] == 200
    for other in ("/etc/passwd", f"{path}/../rows.jsonl", "https://example.org/file", "", None, 7, [path]):
        assert answer(app, JOIN, event(other))[0] == 403, other
        assert answer(GradioPathFilter(echo, None, Limits()), JOIN, event(path))[0] == 403
    twice = event("/secret").replace(b'"path"', b'"path": "%s", "path"' % path.encode())
    assert answer(app, JOIN, twice)[0] == 403
    twice = b'{"data": [{"path": "/secret", "path": "%s"}]}' % path.encode()
    assert answer(app, JOIN, twice)[2].count(b"path") == 1


def test_what_is_no_event_is_refused_with_one_line_of_log(capfd):
    app = GradioPathFilter(echo, None, Limits())
    many = json.dumps({"data": [[0] * 2_000]}).encode()
    bodies = [b"", b"no JSON", b"[" * 40_000, b"\xff", b"[1]", b'{"data": {}}', b"{}", many, event("/secret")]
    for body in bodies:
        assert answer(app, JOIN, body)[0] == 403
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith("refused an event that is not the page's: ")
    status, _, body = answer(app, JOIN, b'{"data": ["%s"]}' % (b"," * 60_000))  # may be a person's text
    assert status == 413 and b"drop it as a file" in body and capfd.readouterr().err == ""


def test_an_event_that_the_page_does_not_have_is_refused():
    app = GradioPathFilter(echo, None, Limits(), {0: "on_text"})
    for number, status in ((0, 200), (1, 403), (None, 403), ("0", 403), ([], 403)):
        assert answer(app, JOIN, json.dumps({"data": [], "fn_index": number}).encode())[0] == status, number


def test_uploads_are_taken_in_gradios_place():
    app = GradioPathFilter(inner, Uploaded(""), Limits())
    assert answer(app, UPLOAD, method="POST")[::2] == (200, b"uploaded")
    assert answer(app, "/gradio_api/upload_progress")[::2] == (200, b'data: {"msg": "done"}\n\n')
    assert answer(GradioPathFilter(inner, None, Limits()), UPLOAD, method="POST")[0] == 404  # without a model


def test_streams_are_limited():
    started, go = asyncio.Event(), asyncio.Event()

    async def stream(scope, receive, send):
        started.set()
        await go.wait()
        await inner(scope, receive, send)

    async def main():
        app, sent = GradioPathFilter(stream, None, Limits(streams=1)), []

        async def send(message):
            sent.append(message.get("status"))

        scope = {"type": "http", "path": "/gradio_api/heartbeat/ab1", "root_path": "", "method": "GET"}
        first = asyncio.create_task(app(scope, None, send))
        await started.wait()
        await app(scope, None, send)
        go.set()
        await first
        await app(scope, None, send)
        return [status for status in sent if status]

    assert asyncio.run(main()) == [503, 200, 200]


def test_every_response_restricts_the_browser_to_this_server():
    for app in (inner, GradioPathFilter(inner, None, Limits())):
        status, headers, _ = answer(SecurityHeaders(app), "/monitoring")
        policy = dict(part.split(" ", 1) for part in headers[b"content-security-policy"].decode().split("; "))
        assert policy["default-src"] == "'self'" and policy["frame-ancestors"] == "'none'"
        assert not any("http" in sources or "*" in sources for sources in policy.values())
        assert headers[b"x-content-type-options"] == b"nosniff"
        assert headers[b"referrer-policy"] == b"no-referrer"
        assert status == 404 or headers[b"x-own"] == b"1"
