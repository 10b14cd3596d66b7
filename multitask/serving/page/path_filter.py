"""ASGI middleware for the page: security headers, and a filter for the paths and files that gradio serves."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse

from multitask.serving.api import replay

JOIN, UPLOAD = "/gradio_api/queue/join", "/gradio_api/upload"  # the paths that take a body
# unsafe-eval: gradio compiles its templates in the browser
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
# what the page needs; gradio also serves files by path, a proxy and an editor
_ALLOWED = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)|/(assets|static|svelte)/.*|"
    rf"{JOIN}|{UPLOAD}|/gradio_api/(queue/data|heartbeat/\w+|upload_progress|startup-events)"
)


class SecurityHeaders:
    """Adds security headers to every response: the browser then sends requests to this server only."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        async def send_with_headers(event: dict) -> None:
            if event["type"] == "http.response.start":
                event["headers"] = [*event.get("headers", ()), *_HEADERS]
            await send(event)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class GradioPathFilter:
    """Refuses all paths of gradio's application that the page does not need, and events that name a file
    outside the upload folder.

    Without it, gradio reads any file or URL that an event names: its own check is in launch(), not in
    mounting. It needs a BodyLimit around it, which passes a body in one message."""

    def __init__(self, app: Any, uploads: str):
        self.app, self.uploads = app, Path(uploads).resolve()

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if not _ALLOWED.fullmatch(path):
            await JSONResponse({"detail": "Not Found"}, 404)(scope, receive, send)
            return
        if path == JOIN:
            body = (await receive()).get("body", b"")
            try:
                event = json.loads(body)
                allowed = all(map(self._is_upload, _files(event)))
            except (ValueError, RecursionError):
                allowed = False
            if not allowed:
                await JSONResponse({"detail": "This is not an event of the page."}, 403)(scope, receive, send)
                return
            # gradio must read what was checked: a key that occurs twice has one value now
            receive = replay(json.dumps(event).encode(), receive)
        await self.app(scope, receive, send)

    def _is_upload(self, path: object) -> bool:
        return isinstance(path, str) and Path(path).resolve().parent.parent == self.uploads


def _files(event: object) -> Iterator[object]:
    """The paths of files that an event names, at any depth."""
    remaining = [event]
    while remaining:
        value = remaining.pop()
        if isinstance(value, dict):
            if "path" in value:
                yield value["path"]
            remaining += value.values()
        elif isinstance(value, list):
            remaining += value
