"""The HTTP API: /predict and /embed, /health and /metrics, described at /docs without a CDN."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ConfigDict, Field
from starlette.routing import Match

from multitask.common.errors import list_problems
from multitask.data.texts import Row, UnreadableRow, rows_from_texts
from multitask.serving.batcher import RequestTooLarge, ServerBusy
from multitask.serving.limits import Limits
from multitask.serving.metrics import Metrics
from multitask.serving.service import Models, Service
from multitask.serving.worker import WorkerEnded

PATHS = ("/predict", "/embed")
VERSION = "1"  # of the API; a change that breaks clients increases it
ABOUT = """A sentence's class and the entities in it, by one model in one pass.

    curl -s {url}/predict -H 'Content-Type: application/json' \\
         -d '{{"texts": ["Marit Solheim won in Oslo."]}}'
"""
NO_MODEL = "there is no trained model yet: python task_4.py trains one; then restart the server"


class EntityRow(BaseModel):
    """text[start:end] is the entity; score is the mean probability of its type over its words."""

    start: int
    end: int
    text: str
    label: str
    score: float


class PredictionRow(BaseModel):
    """The prediction for a text. Fields of a task that the model never learned are null. A blank text has
    null as label and probabilities, and no entities. A label that is null beside probabilities means that the
    model is less sure than task_6.py --accuracy wants. Of a text that could not be read, all fields but
    `error` are null."""

    text: str | None
    label: str | None
    probabilities: dict[str, float] | None
    entities: list[EntityRow] | None
    error: str | None = Field(None, description="Why there is no prediction; absent if there is one.")


class Predictions(BaseModel):
    """A row for each text, in order."""

    predictions: list[PredictionRow]


class Embeddings(BaseModel):
    """An embedding for each text, in order; null for one that could not be read."""

    embeddings: list[list[float] | None]
    errors: list[str] | None = Field(
        None, description="The reason of each null, in order; absent if there are no nulls."
    )


class Health(BaseModel):
    """The served model."""

    status: str
    model: str
    classes: list[str]
    types: list[str]


class Problem(BaseModel):
    """Why a request failed, in one line."""

    detail: str


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "Not JSON in UTF-8"},
    408: {"model": Problem, "description": "The body did not arrive in time"},
    413: {"model": Problem, "description": "The request is too large"},
    422: {"model": Problem, "description": "JSON of another form, or too many texts"},
    503: {"model": Problem, "description": "Busy, stopping, or without a model: try again"},
}


class WholePath(APIRoute):
    """A route that takes every method of its path: other methods get 405 here, and do not reach the page,
    which is mounted at "/"."""

    def matches(self, scope: MutableMapping[str, Any]) -> tuple[Match, Any]:
        match, child = super().matches(scope)
        return Match.FULL if match == Match.PARTIAL else match, child


def application(models: Models, limits: Limits, metrics: Metrics, url: str) -> FastAPI:
    """The API over the models. `url` is the server's address, for the description."""

    class Texts(BaseModel):
        model_config = ConfigDict(extra="forbid")
        texts: Annotated[
            list[Annotated[str, Field(strict=True)]],
            Field(max_length=limits.texts, description=f"Up to {limits.text_characters:,} characters each."),
        ]

        def rows(self) -> list[Row]:
            return list(rows_from_texts(self.texts, limits.text_characters))

    about = ABOUT.format(url=url)
    app = FastAPIOffline(title="MultiTaskTransformer", version=VERSION, description=about, redoc_url=None)
    app.router.route_class = WholePath

    @app.post("/predict", response_model=Predictions, responses=_PROBLEMS)
    async def predict(texts: Texts) -> Response:
        """Class and entities of each text, as `task_5.py predict` writes them."""
        rows = await _main(models).predict_json(texts.rows())
        body = b'{"predictions": [\n' + b",\n".join(rows) + b"\n]}\n"
        return Response(body, media_type="application/json")

    @app.post("/embed", response_model=Embeddings, responses=_PROBLEMS)
    async def embed(texts: Texts) -> Response:
        """The embedding of each text."""
        body = _embeddings_json(await _main(models).embed(texts.rows()))
        return Response(body, media_type="application/json")

    @app.get("/health", responses={503: _PROBLEMS[503]})
    async def health() -> Health:
        """Whether the server answers, and its model."""
        main = _main(models)
        if main.batcher.closing:
            raise ServerBusy("the server is stopping")
        return Health(
            status="ok", model=main.name, classes=[*main.labels.classes], types=[*main.labels.types]
        )

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def prometheus() -> Response:
        """Requests, latencies and the queue, in Prometheus's text format."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    _handle_errors(app)
    return app


def _main(models: Models) -> Service:
    if models.main is None:
        raise ServerBusy(NO_MODEL, 60)
    return models.main


def _embeddings_json(vectors: Sequence[np.ndarray | UnreadableRow]) -> bytes:
    body: dict[str, Any] = {"embeddings": [None if isinstance(v, UnreadableRow) else v for v in vectors]}
    if reasons := [vector.reason for vector in vectors if isinstance(vector, UnreadableRow)]:
        body["errors"] = reasons
    # json would block the event loop for a third of a second: a thousand embeddings of 384 numbers
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def _problem(status: int, detail: str, **headers: str) -> Response:
    return JSONResponse({"detail": detail}, status, headers)


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(ServerBusy)
    @app.exception_handler(WorkerEnded)
    async def unavailable(request: Request, error: ServerBusy | WorkerEnded) -> Response:
        return _problem(503, str(error), **{"Retry-After": str(error.retry_seconds)})

    @app.exception_handler(RequestTooLarge)
    async def too_large(request: Request, error: RequestTooLarge) -> Response:
        return _problem(413, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        lines = [f"{'.'.join(map(str, one['loc'][1:])) or 'body'}: {one['msg']}" for one in error.errors()]
        return _problem(422, "; ".join(list_problems(lines, 3).splitlines()))


class BodyLimit:
    """ASGI middleware: reads the whole body of a request to one of `paths` before the application is called.

    A body that is too large or too slow is refused with 413 or 408."""

    def __init__(self, app: Any, paths: tuple[str, ...], limits: Limits):
        self.app, self.paths, self.limits = app, paths, limits

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] not in self.paths:
            await self.app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                body = await self._read(receive)
        except TimeoutError:
            await _problem(408, "the request's body did not arrive in time")(scope, receive, send)
        except RequestTooLarge as error:
            await _problem(413, str(error), Connection="close")(scope, receive, send)
        else:
            if body is not None:
                await self.app(scope, replay(body, receive), send)

    async def _read(self, receive: Any) -> bytes | None:
        """The body, or None if the client disconnected."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self.limits.body_bytes:
                raise RequestTooLarge(f"more than {self.limits.body_bytes:,} bytes; send fewer texts at once")
            if not message.get("more_body"):
                return bytes(body)


def replay(body: bytes, receive: Any) -> Callable[[], Awaitable[dict]]:
    """An ASGI `receive` that returns the body in one message, then the messages of the original `receive`."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> dict:
        return messages.pop() if messages else await receive()

    return receive_again
