"""The folder of uploaded files: private, of a bounded size, and gone when the server has ended.

gradio keeps them in a folder that all its programs share, under a hash of the content: the first reader of a
file would remove it for another person who uploads the same one."""

import asyncio
import os
import re
import secrets
import shutil
from collections import OrderedDict
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, NamedTuple

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from multitask.serving.limits import Limits
from multitask.serving.page.uploads import KINDS
from multitask.serving.request_checks import Turns

_NOT_IN_NAMES = re.compile(r"[^\w .()\[\]-]")
_NAME_LENGTH = 60  # characters of a file name; at most 240 bytes


class UploadedFile(NamedTuple):
    """A file with its user's name for it."""

    name: str
    content: bytes


class Uploads:
    """ASGI application that takes one file, as gradio's page sends it, and answers with its path. The body
    must be limited before.

    Each file has a folder of its own. When there are too many files, the oldest go."""

    def __init__(self, folder: str, limits: Limits):
        self.folder, self.limits = Path(folder), limits
        self._sizes: OrderedDict[str, int] = OrderedDict()  # of each file, oldest first
        self._turns = Turns()

    def holds(self, path: object) -> bool:
        """Whether it is the path of an uploaded file."""
        return isinstance(path, str) and path in self._sizes

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        await (await self._answer(Request(scope, receive)))(scope, receive, send)

    def remove(self, path: str) -> None:
        """Remove a file, if it is still there."""
        if self._sizes.pop(path, None) is not None:
            shutil.rmtree(Path(path).parent, ignore_errors=True)

    async def _answer(self, request: Request) -> Response:
        limit, body = self.limits.file_bytes, await request.body()
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            return PlainTextResponse("This is not a file of the page.", 400)
        file = await self._turns.in_thread(_file_in, request.headers, body, limit)
        if file is None:
            return PlainTextResponse("This is not a file of the page.", 400)
        if len(file.content) > limit:
            return PlainTextResponse(f"The file exceeds the maximum allowed size, {limit:,} bytes.", 413)
        name = _NOT_IN_NAMES.sub("_", re.split(r"[/\\]", file.name)[-1])[-_NAME_LENGTH:]
        if Path(name).suffix.lower() not in KINDS:
            return PlainTextResponse(f"Files of this kind are not read; {', '.join(KINDS)} are.", 415)
        return JSONResponse([await self._add(name, file.content)])

    async def _add(self, name: str, content: bytes) -> str:
        path = self.folder / secrets.token_hex(16) / name
        await asyncio.to_thread(_write, path, content)
        self._sizes[str(path)] = len(content)
        for old in [old for old in self._sizes if old != str(path)]:
            if not os.path.exists(old):  # it was read
                del self._sizes[old]
        while len(self._sizes) > self.limits.files or sum(self._sizes.values()) > self.limits.files_bytes:
            self.remove(next(iter(self._sizes)))
        asyncio.get_running_loop().call_later(self.limits.file_seconds, self.remove, str(path))
        return str(path)


def _write(path: Path, content: bytes) -> None:
    path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.mkdir(mode=0o700)
    path.write_bytes(content)


def _file_in(headers: Headers, body: bytes, limit: int) -> UploadedFile | None:
    """The file in the form that is the body, with a byte more than the limit if it is too large."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    async def read() -> UploadedFile | None:
        parser = MultiPartParser(headers, stream(), max_files=1, max_fields=1, max_part_size=limit)
        form = await parser.parse()
        file = form.get("files")
        try:
            if not isinstance(file, UploadFile):
                return None
            return UploadedFile(file.filename or "", await file.read(limit + 1))
        finally:
            await form.close()

    try:
        return asyncio.run(read())
    except (KeyError, MultiPartException):  # KeyError: no boundary
        return None
