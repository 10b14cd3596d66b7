"""What a browser may do with the page, and what of gradio's own server can be reached. Pure ASGI: no request
pays for more than a few header lines."""

import re

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
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)/?|/(assets|static|svelte)/.*|"
    r"/gradio_api/(queue/(join|data)|heartbeat/\w+|upload|upload_progress|startup-events|cancel|reset)/?"
)


class Headers:
    """Adds them to every answer."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def send_with_headers(event):
            if event["type"] == "http.response.start":
                event["headers"] = [*event.get("headers", ()), *_HEADERS]
            await send(event)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class Narrow:
    """An application of which only the page's own addresses can be reached."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if scope["type"] == "http" and not _OPEN.fullmatch(path):
            body = b'{"detail":"Not Found"}'
            length, kind = str(len(body)).encode(), b"application/json"
            headers = [(b"content-type", kind), (b"content-length", length)]
            await send({"type": "http.response.start", "status": 404, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        await self.app(scope, receive, send)
