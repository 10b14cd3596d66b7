"""Computes the page's results: of a typed text, a file, a second model. Needs no gradio."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from multitask.common.chunking import split_into_chunks
from multitask.common.errors import InputError
from multitask.data.examples import Example, unannotated_example
from multitask.data.rows import BadRow
from multitask.data.texts import Row, UnreadableRow, rows_from_texts
from multitask.inference.predictions import Prediction
from multitask.serving.batcher import RequestTooLarge, ServerBusy
from multitask.serving.limits import Limits, estimate_tokens
from multitask.serving.page.neighbours import NearestSentences
from multitask.serving.page.results import ModelPredictions, Result, ResultStore
from multitask.serving.page.uploads import read_upload
from multitask.serving.page.view import render, view
from multitask.serving.service import Models, Service
from multitask.serving.worker import WorkerEnded

_PROBLEMS = (InputError, BadRow, ServerBusy, RequestTooLarge, WorkerEnded)
T = TypeVar("T")
Progress = Callable[[int, int, str], object]  # rows done, rows in total, name of the model


class PageController:
    """Computes results and stores them. `other` is the name of a second model, or "" for none."""

    def __init__(self, models: Models, neighbours: NearestSentences | None, limits: Limits):
        self.models, self.neighbours, self.limits = models, neighbours, limits
        self.results = ResultStore()
        self._turn = asyncio.Lock()  # of the thread: several would keep the event loop waiting

    async def show(self, pending: Awaitable[Result], threshold: float) -> tuple[str, str]:
        """Wait for a result and store it → its HTML without entities below `threshold`, and its key.

        If it fails because of the user's input or a busy model: the HTML of a message, and ""."""
        try:
            result = await pending
        except _PROBLEMS as problem:
            return render("message.html", content=str(problem)), ""
        self.results.add(result)
        return await self._in_thread(view, result, threshold), result.key

    async def predict_text(self, typed: str, other: str, progress: Progress) -> Result:
        """The result of a typed text, or of each of its lines. Blank lines are left out."""
        limit, lines = self.limits.text_characters, [line for line in typed.split("\n") if line.strip()]
        if not lines:
            raise InputError("There is no text yet: type a sentence.")
        if len(lines) > self.limits.file_rows:
            problem = f"The text has {len(lines):,} lines; at most {self.limits.file_rows:,} are read"
            raise InputError(f"{problem}. python task_5.py predict reads files of any size.")
        if len(lines) > 1:
            rows = await self._in_thread(lambda: list(rows_from_texts(lines, limit)))
            return await self._predict_all(rows, None, other, progress)
        (text,) = lines
        if len(text) > limit:
            raise InputError(f"The text has {len(text):,} characters; at most {limit:,} are read.")
        rows, services = [unannotated_example({"text": text})], await self._services(other)
        predicted = await asyncio.gather(*(_predict(service, rows) for service in services))
        for ((row, _),) in predicted:
            if isinstance(row, UnreadableRow):
                raise InputError(row.reason)
        nearest = await asyncio.to_thread(self._nearest, predicted[0][0][1])
        models = [_lean(service, pairs, words=True) for service, pairs in zip(services, predicted)]
        return Result(models, neighbours_html=nearest)

    async def predict_file(self, path: str, other: str, progress: Progress) -> Result:
        """The result of an uploaded file. The file is removed: no text stays on the disk."""
        rows = await self._in_thread(read_upload, path, self.limits)
        return await self._predict_all(rows, Path(path).name, other, progress)

    async def compare(self, key: str, other: str, progress: Progress) -> Result:
        """A stored result with the predictions of `other`, which replace those of an earlier second model."""
        result = await self.stored(key)
        models = list(result.models[:1])
        if other:
            service = await self.models.open(other)
            models.append(await _predict_rows(service, models[0].rows, progress, result.is_one_text))
        return replace(result, models=models)

    async def stored(self, key: str) -> Result:
        """A stored result. Raises InputError if it was dropped."""
        if (result := self.results.get(key)) is None:
            raise InputError("This result is no longer stored: run it again.")
        return result

    async def _predict_all(
        self, rows: Sequence[Row], name: str | None, other: str, progress: Progress
    ) -> Result:
        services = await self._services(other)
        return Result([await _predict_rows(service, rows, progress) for service in services], name)

    async def _services(self, other: str) -> list[Service]:
        if self.models.main is None:
            raise InputError("There is no trained model yet.")
        return [self.models.main, *([await self.models.open(other)] if other else [])]

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        async with self._turn:
            return await asyncio.to_thread(function, *arguments)

    def _nearest(self, prediction: Prediction | None) -> str:
        searched = self.neighbours
        if searched is None or prediction is None or prediction.embedding is None:
            return ""
        nearest = searched.nearest(prediction.embedding)
        return render("nearest.html", neighbours=nearest, done=searched.done, total=searched.total)


async def _predict_rows(
    service: Service, rows: Sequence[Row], progress: Progress, words: bool = False
) -> ModelPredictions:
    def size(row: Row) -> int:
        return estimate_tokens(row) if isinstance(row, Example) else 0

    pairs: list[tuple[Row, Prediction | None]] = []
    # at most one batch at a time: other requests get their turn in between
    for chunk in split_into_chunks(rows, size, service.limits.batch_cost, service.limits.batch_rows):
        progress(len(pairs), len(rows), service.name)
        pairs += await _predict(service, chunk)
    return _lean(service, pairs, words)


async def _predict(service: Service, rows: Sequence[Row]) -> list[tuple[Row, Prediction | None]]:
    """Predict; retry while the service is busy. Raises ServerBusy if that takes longer than the limit."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + service.limits.busy_seconds
    while True:
        try:
            return await service.predict(rows)
        except ServerBusy as busy:
            if service.batcher.closing:  # the server stops, or another model replaces this one
                raise InputError(f"{service.name} is no longer loaded: run it again.") from None
            if loop.time() + busy.retry_seconds > deadline:
                raise
            await asyncio.sleep(busy.retry_seconds)


def _lean(service: Service, pairs: Sequence[tuple[Row, Prediction | None]], words: bool) -> ModelPredictions:
    """The predictions to store: without embeddings, and without words unless wanted."""
    predictions = [p and p._replace(embedding=None, words=p.words if words else None) for _, p in pairs]
    return ModelPredictions(service.name, service.labels, [row for row, _ in pairs], predictions)
