"""What a browser may do with the page, and what of gradio's own server can be reached. Pure ASGI: no request
pays for more than a few header lines."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

JOIN, UPLOAD = "/gradio_api/queue/join", "/gradio_api/upload"  # where a body is sent to
# gradio compiles its templates in the browser, hence eval; all else comes from this server or is in the page
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
# the page's own: gradio also serves files by path, a proxy and an editor, which nothing here uses
_OPEN = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)|/(assets|static|svelte)/.*|"
    rf"{JOIN}|{UPLOAD}|/gradio_api/(queue/data|heartbeat/\w+|upload_progress|startup-events)"
)


class SecurityHeaders:
    """Adds them to every answer."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def send_with_headers(event):
            if event["type"] == "http.response.start":
                event["headers"] = [*event.get("headers", ()), *_HEADERS]
            await send(event)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class GradioPathFilter:
    """Gradio's application, of which only the page's addresses can be reached, and whose events name no file
    but those in the folder of uploads.

    Gradio itself, mounted and not launched, reads whatever file or URL an event names. It is to stand behind
    a BodyLimit: a body comes in one piece."""

    def __init__(self, app: Any, uploads: str):
        self.app, self.uploads = app, Path(uploads)

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if not _OPEN.fullmatch(path):
            await _refuse(send, 404, "Not Found")
            return
        if path == JOIN:
            event = await receive()
            try:
                sent = json.loads(event.get("body", b""))
                uploaded = all(map(self._uploaded, _files(sent)))
            except (ValueError, RecursionError):
                uploaded = False
            if not uploaded:
                await _refuse(send, 403, "This is no event of the page.")
                return
            # what was looked at is what gradio reads, also where a key stands twice
            pieces = [{**event, "body": json.dumps(sent).encode()}]

            async def again():
                return pieces.pop() if pieces else await receive()

            await self.app(scope, again, send)
            return
        await self.app(scope, receive, send)

    def _uploaded(self, path: object) -> bool:
        return isinstance(path, str) and Path(path).resolve().parent.parent == self.uploads.resolve()


def _files(sent: object) -> Iterator[object]:
    """The files that an event names, at any depth."""
    left = [sent]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            if "path" in one:
                yield one["path"]
            left += one.values()
        elif isinstance(one, list):
            left += one


async def _refuse(send: Any, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}, separators=(",", ":")).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
