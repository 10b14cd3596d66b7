"""The HTTP API: /predict and /embed, /health and /metrics, described at /docs without a CDN."""

import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.routing import Match

from multitask.common.errors import list_problems
from multitask.data.texts import Row, UnreadableRow, rows_from_texts
from multitask.serving.batcher import RequestTooLarge, ServerBusy
from multitask.serving.limits import Limits, least_tokens
from multitask.serving.metrics import Metrics
from multitask.serving.request_checks import Turns, parse_json, problem
from multitask.serving.service import Models, Service
from multitask.serving.worker import WorkerEnded

PATHS = ("/predict", "/embed")
VERSION = "1"  # of the API; a change that breaks clients increases it
ABOUT = """A sentence's class and the entities in it, by one model in one pass.

    curl -s {url}/predict -H 'Content-Type: application/json' \\
         -d '{{"texts": ["Marit Solheim won in Oslo."]}}'
"""
_KEYS = 20  # of an object, beyond which its keys are not named
_LONGEST = 300  # characters that are told of a mistake: a key may have a million
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

    about = ABOUT.format(url=url)
    app = FastAPIOffline(title="MultiTaskTransformer", version=VERSION, description=about, redoc_url=None)
    app.router.route_class = WholePath

    turns = Turns()

    read_rows, schema = rows_reader(models, limits, turns)
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    options: dict[str, Any] = {"responses": _PROBLEMS, "openapi_extra": {"requestBody": body}}
    Rows = Annotated[list[Row], Depends(read_rows)]

    @app.post("/predict", response_model=Predictions, **options)
    async def predict(rows: Rows) -> Response:
        """Class and entities of each text, as `task_5.py predict` writes them."""
        lines = await _main(models).predict_json(rows)
        body = b'{"predictions": [\n' + b",\n".join(lines) + b"\n]}\n"
        return Response(body, media_type="application/json")

    @app.post("/embed", response_model=Embeddings, **options)
    async def embed(rows: Rows) -> Response:
        """The embedding of each text."""
        vectors = await _main(models).embed(rows)
        body = await turns.in_thread(_embeddings_json, vectors)
        return Response(body, media_type="application/json")

    @app.get("/health", responses={503: _PROBLEMS[503]})
    async def health() -> Health:
        """Whether the model answers, and its names."""
        main = _main(models)
        if reason := main.unavailable():
            raise ServerBusy(reason)
        return Health(
            status="ok", model=main.name, classes=[*main.labels.classes], types=[*main.labels.types]
        )

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def prometheus() -> Response:
        """Requests, latencies and the queue, in Prometheus's text format."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    _handle_errors(app)
    return app


def rows_reader(
    models: Models, limits: Limits, turns: Turns
) -> tuple[Callable[[Request], Awaitable[list[Row]]], dict[str, Any]]:
    """A function that reads a request's rows, and the schema of the body that it expects."""

    class Texts(BaseModel):
        model_config = ConfigDict(extra="forbid")
        texts: Annotated[
            list[Annotated[str, Field(strict=True)]],
            Field(max_length=limits.texts, description=f"Up to {limits.text_characters:,} characters each."),
        ]

    async def read_rows(request: Request) -> list[Row]:
        """The rows of a request. FastAPI would collect every mistake in a body, for seconds."""
        body = await request.body()
        value = await turns.call(len(body), _parse, request.headers.get("content-type", ""), body, limits)
        try:
            texts = Texts.model_validate(value).texts
        except ValidationError as error:
            raise _invalid(*(("body", *one["loc"], one["msg"]) for one in error.errors())) from None
        main = _main(models)
        main.batcher.check(least_tokens(texts, limits.text_characters))
        return await turns.call(len(body), _rows, texts, limits)

    return read_rows, Texts.model_json_schema()


def _main(models: Models) -> Service:
    if models.main is None:
        raise ServerBusy(NO_MODEL, 60)
    return models.main


def _embeddings_json(vectors: Sequence[np.ndarray | UnreadableRow]) -> bytes:
    # one by one: orjson lets no other thread run meanwhile, and json would take a third of a second
    option = orjson.OPT_SERIALIZE_NUMPY
    lines = [b"null" if isinstance(v, UnreadableRow) else orjson.dumps(v, option=option) for v in vectors]
    reasons = [vector.reason for vector in vectors if isinstance(vector, UnreadableRow)]
    errors = b',"errors":' + orjson.dumps(reasons) if reasons else b""
    return b'{"embeddings":[' + b",".join(lines) + b"]" + errors + b"}"


def _parse(content_type: str, body: bytes, limits: Limits) -> Any:
    """The value of a body of JSON, if it can be a list of texts. Raises RequestValidationError,
    RequestTooLarge, or HTTPException for what is not JSON in UTF-8."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise _invalid(("body", "the Content-Type must be application/json"))
    if not body:
        raise _invalid(("body", "Field required"))
    try:
        value = parse_json(body, limits)
    except RequestTooLarge:
        raise
    except json.JSONDecodeError as error:
        raise _invalid(("body", error.pos, "JSON decode error")) from None
    except (ValueError, RecursionError):
        raise HTTPException(400, "There was an error parsing the body") from None
    if not isinstance(value, dict):
        return value
    if len(value) > _KEYS:
        raise _invalid(("body", f"{len(value):,} keys; only texts is read"))
    # a mistake is noted for each value, and each key is copied
    most = limits.texts + 1
    return {key[:_LONGEST]: one[:most] if isinstance(one, list) else one for key, one in value.items()}


def _rows(texts: Sequence[str], limits: Limits) -> list[Row]:
    return list(rows_from_texts(texts, limits.text_characters))


def _invalid(*mistakes: tuple[Any, ...]) -> RequestValidationError:
    """The error for mistakes: each its place, part by part, and a message."""
    return RequestValidationError([{"loc": place, "msg": message} for *place, message in mistakes])


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(ServerBusy)
    @app.exception_handler(WorkerEnded)
    async def unavailable(request: Request, error: ServerBusy | WorkerEnded) -> Response:
        return problem(503, str(error), **{"Retry-After": str(error.retry_seconds)})

    @app.exception_handler(RequestTooLarge)
    async def too_large(request: Request, error: RequestTooLarge) -> Response:
        return problem(413, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        lines = [f"{'.'.join(map(str, one['loc'][1:])) or 'body'}: {one['msg']}" for one in error.errors()]
        lines = [line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..." for line in lines]
        return problem(422, "; ".join(list_problems(lines, 3).splitlines()))
