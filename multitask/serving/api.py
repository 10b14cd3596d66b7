"""The HTTP API: /predict and /embed, /health and /metrics, described at /docs without a CDN."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ConfigDict, Field
from starlette.routing import Match

from multitask.common.errors import list_problems
from multitask.data.texts import Row, UnreadableRow, rows_from_texts
from multitask.serving.batcher import Busy, RequestTooLarge
from multitask.serving.limits import Limits
from multitask.serving.metrics import Metrics
from multitask.serving.service import Models, Service
from multitask.serving.worker import WorkerEnded

PATHS = ("/predict", "/embed")
VERSION = "1"  # of what is sent and answered; another one would break those who ask
ABOUT = """A sentence's class and the entities in it, by one model in one pass.

    curl -s {url}/predict -H 'Content-Type: application/json' \\
         -d '{{"texts": ["Marit Solheim won in Oslo."]}}'
"""
NO_MODEL = "there is no trained model yet; python task_4.py trains one, then start this again"


class EntityRow(BaseModel):
    """text[start:end] is the entity; score is the mean probability of its type over its words."""

    start: int
    end: int
    text: str
    label: str
    score: float


class PredictionRow(BaseModel):
    """What the model says of a text. A task that it never learned is null; so is all of a text that could not
    be read, which has an error."""

    text: str | None
    label: str | None
    probabilities: dict[str, float] | None
    entities: list[EntityRow] | None
    error: str | None = Field(None, description="Why there is no prediction; left out where there is one.")


class Predictions(BaseModel):
    """A row for each text, in order."""

    predictions: list[PredictionRow]


class Embeddings(BaseModel):
    """An embedding for each text, in order; null for one that could not be read."""

    embeddings: list[list[float] | None]
    errors: list[str] | None = Field(None, description="The reasons of nulls; left out where there are none.")


class Health(BaseModel):
    """What is served."""

    status: str
    model: str
    classes: list[str]
    types: list[str]


class Problem(BaseModel):
    """Why there is no answer, in a line."""

    detail: str


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "Not JSON in UTF-8"},
    408: {"model": Problem, "description": "A body that did not come in time"},
    413: {"model": Problem, "description": "More than one request may hold"},
    422: {"model": Problem, "description": "Not what was asked for"},
    503: {"model": Problem, "description": "Busy, stopping, or without a model: try again"},
}


class WholePath(APIRoute):
    """A path of which all methods are the API's: those that it does not have are refused (405), not looked
    for on the page that is mounted at "/"."""

    def matches(self, scope: MutableMapping[str, Any]) -> tuple[Match, Any]:
        found, child = super().matches(scope)
        return Match.FULL if found == Match.PARTIAL else found, child


def application(models: Models, limits: Limits, metrics: Metrics, url: str) -> FastAPI:
    """The API over the models, which is asked at `url`."""

    class Texts(BaseModel):
        model_config = ConfigDict(extra="forbid")
        texts: Annotated[
            list[Annotated[str, Field(strict=True)]],
            Field(max_length=limits.texts, description=f"Up to {limits.text_characters:,} characters each."),
        ]

    about = ABOUT.format(url=url)
    app = FastAPIOffline(title="MultiTaskTransformer", version=VERSION, description=about, redoc_url=None)
    app.router.route_class = WholePath

    def rows_of(texts: Texts) -> list[Row]:
        return list(rows_from_texts(texts.texts, limits.text_characters))

    def service() -> Service:
        if (main := models.main) is None:
            raise Busy(NO_MODEL, 60)
        return main

    @app.post("/predict", response_model=Predictions, responses=_PROBLEMS)
    async def predict(texts: Texts) -> Response:
        """Class and entities of each text, as `task_5.py predict` writes them."""
        found = await service().predict(rows_of(texts))
        return _json(b'{"predictions": [\n' + b",\n".join(found) + b"\n]}\n")

    @app.post("/embed", response_model=Embeddings, responses=_PROBLEMS)
    async def embed(texts: Texts) -> Response:
        """The embedding of each text."""
        found = await service().embed(rows_of(texts))
        good = [isinstance(each, np.ndarray) for each in found]
        answer: dict[str, Any] = {"embeddings": [each if ok else None for each, ok in zip(found, good)]}
        if not all(good):
            answer["errors"] = [each.reason for each in found if isinstance(each, UnreadableRow)]
        # json would take a third of a second for a thousand of 384 numbers, in which nobody else is answered
        return _json(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))

    _watch(app, service, metrics)
    _handle_errors(app)
    return app


def _watch(app: FastAPI, service: Callable[[], Service], metrics: Metrics) -> None:
    @app.get("/health", responses={503: _PROBLEMS[503]})
    async def health() -> Health:
        """Whether the model answers."""
        main = service()
        if main.batcher.closing:
            raise Busy("the server is stopping")
        return Health(
            status="ok", model=main.name, classes=[*main.labels.classes], types=[*main.labels.types]
        )

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def prometheus() -> Response:
        """Requests, latencies and the queue, in Prometheus's text form."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _problem(status: int, detail: str, **headers: str) -> Response:
    return Response(Problem(detail=detail).model_dump_json(), status, headers, media_type="application/json")


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(Busy)
    async def busy(request: Request, error: Busy) -> Response:
        return _problem(503, str(error), **{"Retry-After": str(error.seconds)})

    @app.exception_handler(WorkerEnded)
    async def ended(request: Request, error: WorkerEnded) -> Response:
        return _problem(503, str(error), **{"Retry-After": "10"})

    @app.exception_handler(RequestTooLarge)
    async def too_much(request: Request, error: RequestTooLarge) -> Response:
        return _problem(413, str(error))

    @app.exception_handler(RequestValidationError)
    async def wrong(request: Request, error: RequestValidationError) -> Response:
        lines = [f"{'.'.join(map(str, each['loc'][1:])) or 'body'}: {each['msg']}" for each in error.errors()]
        return _problem(422, "; ".join(list_problems(lines, 3).splitlines()))


class BodyLimit:
    """ASGI middleware: a request to one of `paths` gets to the application with all of its body, or not at
    all."""

    def __init__(self, app: Any, paths: tuple[str, ...], limits: Limits):
        self.app, self.paths, self.limits = app, paths, limits

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] not in self.paths:
            await self.app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                body = await self._body(receive)
        except TimeoutError:
            await _problem(408, "the request's body did not come")(scope, receive, send)
        except RequestTooLarge as error:
            await _problem(413, str(error), Connection="close")(scope, receive, send)
        else:
            if body is not None:
                await self.app(scope, _replayed(body, receive), send)

    async def _body(self, receive: Any) -> bytes | None:
        """None where the client has gone."""
        parts, total = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            total += len(parts[-1])
            if total > self.limits.body_bytes:
                raise RequestTooLarge(f"more than {self.limits.body_bytes:,} bytes; send fewer texts at once")
            if not message.get("more_body"):
                return b"".join(parts)


def _replayed(body: bytes, receive: Any) -> Callable[[], Awaitable[dict]]:
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> dict:
        return left.pop() if left else await receive()

    return again
