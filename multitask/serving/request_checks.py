"""ASGI middleware that looks at a request before the application does: its origin, and its body."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from starlette.responses import JSONResponse, Response

from multitask.serving.batcher import RequestTooLarge
from multitask.serving.limits import Limits

_SAFE = ("GET", "HEAD", "OPTIONS")  # methods that change nothing
_SMALL = 1 << 14  # bytes of a request that takes no turns
_DIGITS = 15  # of a length
_MARKS = (b",", b":", b"[", b"{")
T = TypeVar("T")


def problem(status: int, detail: str, **headers: str) -> Response:
    """A response with the reason why a request failed."""
    return JSONResponse({"detail": detail}, status, headers)


class SameOrigin:
    """Refuses requests that the page of another site sends, such as a form: a browser says where they come
    from. Programs send neither header."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] not in _SAFE and _is_foreign(dict(scope["headers"])):
            await problem(403, "sent by the page of another site")(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _is_foreign(headers: dict[bytes, bytes]) -> bool:
    if (site := headers.get(b"sec-fetch-site")) is not None:
        return site not in (b"same-origin", b"none")
    if (origin := headers.get(b"origin")) is None:  # of an old browser, which has no Sec-Fetch-Site
        return False
    try:
        return urlsplit(origin).netloc.lower() != headers.get(b"host", b"").lower() or origin == b"null"
    except ValueError:
        return True


class BodyLimit:
    """Reads the whole body of a request to one of `paths` before the application is called.

    A body that is too large or too slow is refused with 413 or 408, and with 503 one that comes while the
    bodies of other requests take too much memory."""

    def __init__(self, app: Any, paths: tuple[str, ...], limits: Limits):
        self.app, self.paths, self.limits = app, paths, limits
        self.held = 0  # bytes of the bodies of all requests in progress

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] not in self.paths:
            await self.app(scope, receive, send)
            return
        body, announced = bytearray(), _content_length(scope)
        self.held += announced
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                is_whole = await self._read(receive, body, announced)
            if is_whole:
                await self.app(scope, replay(bytes(body), receive), send)
        except TimeoutError:
            await _close(408, "the request's body did not arrive in time")(scope, receive, send)
        except BodyTooLarge as error:
            await _close(413, str(error))(scope, receive, send)
        except BodiesTooLarge as error:
            await _close(503, str(error), **{"Retry-After": "1"})(scope, receive, send)
        finally:
            self.held -= max(len(body), announced)

    async def _read(self, receive: Any, body: bytearray, announced: int) -> bool:
        """Append what arrives → whether the whole body did; else the client has disconnected."""
        while True:
            self._check(max(len(body), announced))
            message = await receive()
            if message["type"] == "http.disconnect":
                return False
            before = max(len(body), announced)
            body += message.get("body", b"")
            self.held += max(len(body), announced) - before
            if not message.get("more_body"):
                self._check(len(body))
                return True

    def _check(self, size: int) -> None:
        if size > self.limits.body_bytes:
            raise BodyTooLarge(f"more than {self.limits.body_bytes:,} bytes; send fewer texts at once")
        if self.held > self.limits.bodies_bytes:
            raise BodiesTooLarge("busy: too many requests are arriving; try again in a moment")


class BodyTooLarge(ValueError):
    """A body larger than the limit."""


class BodiesTooLarge(ValueError):
    """The bodies of several requests are larger than their limit."""


def _close(status: int, detail: str, **headers: str) -> Response:
    """A problem after which the connection is closed: the rest of the body is not read."""
    return problem(status, detail, Connection="close", **headers)


def _content_length(scope: dict) -> int:
    """The size that a request announces for its body; 0 if it does not."""
    value = dict(scope["headers"]).get(b"content-length", b"")
    return int(value[:_DIGITS]) if value.isdigit() else 0


def replay(body: bytes, receive: Any) -> Callable[[], Awaitable[dict]]:
    """An ASGI `receive` that returns the body in one message, then the messages of the original `receive`."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> dict:
        return messages.pop() if messages else await receive()

    return receive_again


class Turns:
    """Calls functions that take milliseconds in a thread, one after the other: many large requests together
    do not hold the event loop."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def call(self, size: int, function: Callable[..., T], *arguments: Any) -> T:
        """function(*arguments), at once if the request's size in bytes is small."""
        if size < _SMALL:
            return function(*arguments)
        return await self.in_thread(function, *arguments)

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """function(*arguments), in its turn."""
        async with self._lock:
            return await asyncio.to_thread(function, *arguments)


def parse_json(body: bytes, limits: Limits) -> Any:
    """The value of a body of JSON.

    Raises:
        RequestTooLarge: it has so many values that parsing them would hold the event loop.
        ValueError, RecursionError: it is not JSON, not in UTF-8, or too deep."""
    if sum(map(body.count, _MARKS)) > limits.body_marks:
        raise RequestTooLarge(f"more than {limits.body_marks:,} commas, colons and brackets")
    return json.loads(body)
