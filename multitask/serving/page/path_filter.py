"""ASGI middleware for the page: security headers, and a filter for the paths and files that gradio serves."""

import json
import logging
import re
from collections.abc import Container, Iterator
from typing import Any

from starlette.responses import Response

from multitask.serving.batcher import RequestTooLarge
from multitask.serving.limits import Limits
from multitask.serving.page.upload_folder import Uploads
from multitask.serving.request_checks import Turns, parse_json, problem, replay

logger = logging.getLogger(__name__)

JOIN, UPLOAD = "/gradio_api/queue/join", "/gradio_api/upload"  # the paths that take a body
_PROGRESS = "/gradio_api/upload_progress"
_STREAMS = ("/gradio_api/queue/data", "/gradio_api/heartbeat/")
_VALUES = 1_000  # in an event, which has a handful
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
    rf"{JOIN}|{UPLOAD}|{_PROGRESS}|/gradio_api/(queue/data|heartbeat/\w+|startup-events)"
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
    """Refuses all paths of gradio's application that the page does not need, and events that are not the
    page's or name a file that was not uploaded. Takes uploads in gradio's place; None: there are none.
    `functions` has the numbers of the page's events; None: all are passed on.

    Without it, gradio reads any file or URL that an event names: its own check is in launch(), not in
    mounting. It needs a BodyLimit around it, which passes a body in one message."""

    def __init__(
        self, app: Any, uploads: Uploads | None, limits: Limits, functions: Container[int] | None = None
    ):
        self.app, self.uploads, self.limits, self.functions = app, uploads, limits, functions
        self.streams = 0
        self._turns = Turns()

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if not _ALLOWED.fullmatch(path) or (path == UPLOAD and not self.uploads):
            await problem(404, "Not Found")(scope, receive, send)
        elif path == UPLOAD and self.uploads and scope["method"] == "POST":
            await self.uploads(scope, receive, send)
        elif path == _PROGRESS:  # a file has arrived as a whole before it is looked at
            await Response('data: {"msg": "done"}\n\n', media_type="text/event-stream")(scope, receive, send)
        elif path.startswith(_STREAMS):
            await self._stream(scope, receive, send)
        elif path == JOIN:
            await self._join(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _stream(self, scope: dict, receive: Any, send: Any) -> None:
        """Each stream asks twenty times a second whether there is something new."""
        if self.streams >= self.limits.streams:
            await problem(503, "too many pages are open; try again later")(scope, receive, send)
            return
        self.streams += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.streams -= 1

    async def _join(self, scope: dict, receive: Any, send: Any) -> None:
        body = (await receive()).get("body", b"")
        try:
            event = await self._turns.call(len(body), self._event, body)
        except RequestTooLarge as error:
            await problem(413, f"The text has {error}; drop it as a file.")(scope, receive, send)
        except (ValueError, RecursionError) as error:
            logger.warning(f"refused an event that is not the page's: {' '.join(str(error).split())[:200]}")
            await problem(403, "This is not an event of the page.")(scope, receive, send)
        else:
            # gradio must read what was checked: a key that occurs twice has one value now
            await self.app(scope, replay(json.dumps(event).encode(), receive), send)

    def _event(self, body: bytes) -> dict[str, Any]:
        """An event of the page. Raises ValueError or RecursionError if it can't be one."""
        event = parse_json(body, self.limits)
        if not isinstance(event, dict) or not isinstance(event.get("data"), list):
            raise ValueError("no list of data")
        number = event.get("fn_index")
        if self.functions is not None and not (isinstance(number, int) and number in self.functions):
            raise ValueError("the page has no such event")
        if not all(self.uploads and self.uploads.holds(path) for path in _files(event)):
            raise ValueError("it names a file that was not uploaded")
        return event


def _files(event: object) -> Iterator[object]:
    """The paths of files that an event names, at any depth. Raises ValueError if it has too many values."""
    remaining, count = [event], 0
    while remaining:
        value, count = remaining.pop(), count + 1
        if count + len(remaining) > _VALUES:
            raise ValueError(f"more than {_VALUES:,} values")
        if isinstance(value, dict):
            if "path" in value:
                yield value["path"]
            remaining += value.values()
        elif isinstance(value, list):
            remaining += value
