"""What the page asks of models: a text, a file's rows, another model's opinion. Needs no gradio."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from multitask.common.chunking import split_into_chunks
from multitask.common.errors import InputError
from multitask.data.rows import BadRow, Example, unannotated_example
from multitask.data.texts import Row, UnreadableRow
from multitask.inference.predictions import Prediction
from multitask.serving.batcher import Busy, RequestTooLarge
from multitask.serving.limits import Limits, estimate_tokens
from multitask.serving.page.neighbours import NearestSentences
from multitask.serving.page.results import ModelPredictions, Result, ResultStore
from multitask.serving.page.uploads import read_dropped
from multitask.serving.page.view import message, nearest, view
from multitask.serving.service import Models, Service
from multitask.serving.worker import WorkerEnded

_PATIENCE = 30.0  # seconds that a busy model is waited for
_PROBLEMS = (InputError, BadRow, Busy, RequestTooLarge, WorkerEnded)
Progress = Callable[[int, int, str], object]  # rows done, of how many, by which model
Seen = list[tuple[Row, Prediction | None]]


class PageController:
    """Every method gives HTML and the key of the Result that it shows, "" where there is none; a mistake of
    the person or a model that stays busy is a line in its place."""

    def __init__(self, models: Models, neighbours: NearestSentences | None, limits: Limits):
        self.models, self.neighbours, self.limits = models, neighbours, limits
        self.results = ResultStore()

    async def text(self, content: str, other: str, least: float) -> tuple[str, str]:
        """A text that was typed, by the model and by the `other` where one is named."""
        return await self._shown(self._text(content, other), least)

    async def file(self, path: str, other: str, least: float, progress: Progress) -> tuple[str, str]:
        """The rows of an uploaded file, which is removed: no text stays on the disk."""
        return await self._shown(self._file(path, other, progress), least)

    async def compared(self, key: str, other: str, least: float, progress: Progress) -> tuple[str, str]:
        """A result with the `other` model's answers beside it, or without any."""
        return await self._shown(self._compared(key, other, progress), least)

    async def above(self, key: str, least: float) -> tuple[str, str]:
        """A result with another threshold: no model is asked."""
        return await self._shown(self._kept(key), least)

    async def _shown(self, asked: Awaitable[Result], least: float) -> tuple[str, str]:
        try:
            result = await asked
        except _PROBLEMS as problem:
            return message(str(problem)), ""
        self.results.add(result)
        return await asyncio.to_thread(view, result, least), result.key

    async def _text(self, content: str, other: str) -> Result:
        most = self.limits.text_characters
        if not content.strip():
            raise InputError("There is no text yet: type a sentence.")
        if len(content) > most:
            raise InputError(f"The text has {len(content):,} characters; at most {most:,} are read.")
        rows, services = [unannotated_example({"text": content})], await self._services(other)
        seen = await asyncio.gather(*(_patiently(service, rows) for service in services))
        for ((row, _),) in seen:
            if isinstance(row, UnreadableRow):
                raise InputError(row.reason)
        near = await asyncio.to_thread(self._near, seen[0][0][1])
        answers = [_answers(service, found, words=True) for service, found in zip(services, seen)]
        return Result(answers, neighbours_html=near)

    async def _file(self, path: str, other: str, progress: Progress) -> Result:
        rows = await asyncio.to_thread(read_dropped, path, self.limits)
        services = await self._services(other)
        return Result([await _all(service, rows, progress) for service in services], Path(path).name)

    async def _compared(self, key: str, other: str, progress: Progress) -> Result:
        result = await self._kept(key)
        answers = list(result.models[:1])
        if other:
            service, typed = await self.models.open(other), result.file_name is None
            answers.append(await _all(service, answers[0].rows, progress, words=typed))
        return replace(result, models=answers)

    async def _services(self, other: str) -> list[Service]:
        if self.models.main is None:
            raise InputError("There is no trained model yet.")
        return [self.models.main, *([await self.models.open(other)] if other else [])]

    async def _kept(self, key: str) -> Result:
        result = self.results.get(key)
        if result is None:
            raise InputError("This result is no longer kept: ask again.")
        return result

    def _near(self, prediction: Prediction | None) -> str:
        if self.neighbours is None or prediction is None or prediction.embedding is None:
            return ""
        found = self.neighbours.nearest(prediction.embedding)
        return nearest(found, self.neighbours.done, self.neighbours.total)


async def _all(
    service: Service, rows: Sequence[Row], progress: Progress, words: bool = False
) -> ModelPredictions:
    seen: Seen = []
    for chunk in _chunks(rows, service.limits):
        progress(len(seen), len(rows), service.name)
        seen += await _patiently(service, chunk)
    return _answers(service, seen, words)


def _chunks(rows: Sequence[Row], limits: Limits) -> Iterator[list[Row]]:
    """At most one batch each, so that other requests get their turn in between."""

    def size(row: Row) -> int:
        return estimate_tokens(row) if isinstance(row, Example) else 0

    return split_into_chunks(rows, size, limits.batch_cost, limits.batch_rows)


async def _patiently(service: Service, rows: Sequence[Row]) -> Seen:
    """What the service says; while it is busy, waits and asks again. Raises Busy when that takes too long."""
    loop = asyncio.get_running_loop()
    end = loop.time() + _PATIENCE
    while True:
        try:
            return await service.see(rows)
        except Busy as busy:
            if service.batcher.closing:  # the server stops, or another one was chosen to compare with
                raise InputError(f"{service.name} is no longer loaded: ask again.") from None
            if loop.time() + busy.seconds > end:
                raise
            await asyncio.sleep(busy.seconds)


def _answers(service: Service, seen: Seen, words: bool) -> ModelPredictions:
    """To be kept: without embeddings, and for a file without words."""
    said = [one and one._replace(embedding=None, words=one.words if words else None) for _, one in seen]
    return ModelPredictions(service.name, service.labels, [row for row, _ in seen], said)
