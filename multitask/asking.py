"""What the page asks of models: a text, a file's rows, another model's opinion. Knows nothing of how it looks."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from multitask.dropped_file import read_dropped
from multitask.errors import InputError
from multitask.limits import Limits
from multitask.neighbours import Neighbours
from multitask.predictions import Prediction
from multitask.result_view import message, nearest, view
from multitask.results import Answers, Result, Results
from multitask.rows import BadRow
from multitask.service import Busy, Models, Service
from multitask.texts import Row, example_of_record

_CHUNK = 32  # rows that are asked at once: others come between
_PATIENCE = 30.0  # seconds that a busy model is waited for
Progress = Callable[[int, int, str], object]  # rows done, of how many, by which model


class Asking:
    """Every method gives HTML and the key of the Result that it shows, "" where there is none; a mistake of
    the person or a model that stays busy is a line in its place."""

    def __init__(self, models: Models, neighbours: Neighbours | None, limits: Limits):
        self.models, self.neighbours, self.limits = models, neighbours, limits
        self.results = Results()

    async def text(self, content: str, other: str, least: float) -> tuple[str, str]:
        """A text that was typed, by the model and by the `other` where one is named."""
        return await self._shown(self._text(content, other), least)

    async def file(self, path: str, other: str, least: float, progress: Progress) -> tuple[str, str]:
        """The rows of an uploaded file, which is removed: no text stays on the disk."""
        return await self._shown(self._file(path, other, progress), least)

    async def compared(self, key: str, other: str, least: float, progress: Progress) -> tuple[str, str]:
        """A result with the `other` model's answers to its rows beside it, or without any."""
        return await self._shown(self._compared(key, other, progress), least)

    async def above(self, key: str, least: float) -> tuple[str, str]:
        """A result with another threshold: no model is asked."""
        return await self._shown(self._kept(key), least)

    async def _shown(self, asked, least: float) -> tuple[str, str]:
        try:
            result = await asked
        except (InputError, BadRow, Busy) as problem:
            return message(str(problem)), ""
        self.results.keep(result)
        return await asyncio.to_thread(view, result, least), result.key

    async def _text(self, content: str, other: str) -> Result:
        most = self.limits.text_characters
        if not content.strip():
            raise InputError("There is no text yet: type a sentence.")
        if len(content) > most:
            raise InputError(f"The text has {len(content):,} characters; at most {most:,} are read.")
        rows = [example_of_record({"text": content})]
        services = [self.models.main, *([await self.models.open(other)] if other else [])]
        said = await asyncio.gather(*(_patiently(service, rows) for service in services))
        answers = [_answers(service, found, words=True) for service, found in zip(services, said)]
        near = await asyncio.to_thread(self._near, said[0][0])
        return Result(rows, answers, near=near)

    async def _file(self, path: str, other: str, progress: Progress) -> Result:
        limits = self.limits
        try:
            rows = await asyncio.to_thread(read_dropped, path, limits.file_rows, limits.text_characters)
        finally:
            Path(path).unlink(missing_ok=True)
        services = [self.models.main, *([await self.models.open(other)] if other else [])]
        answers = [await _all(service, rows, progress) for service in services]
        return Result(rows, answers, Path(path).name)

    async def _compared(self, key: str, other: str, progress: Progress) -> Result:
        result = await self._kept(key)
        answers = list(result.answers[:1])
        if other:
            service, typed = await self.models.open(other), result.file is None
            answers.append(await _all(service, result.rows, progress, typed))
        return replace(result, answers=answers)

    async def _kept(self, key: str) -> Result:
        result = self.results.get(key)
        if result is None:
            raise InputError("This result is no longer kept: ask again.")
        return result

    def _near(self, said: Prediction) -> str:
        if self.neighbours is None or said.embedding is None:
            return ""
        found = self.neighbours.nearest(said.embedding)
        return nearest(found, self.neighbours.done, self.neighbours.total)


async def _all(service: Service, rows: Sequence[Row], progress: Progress, words: bool = False) -> Answers:
    said = []
    for at in range(0, len(rows), _CHUNK):
        progress(at, len(rows), service.name)
        said += _answers(service, await _patiently(service, rows[at : at + _CHUNK]), words).said
    return Answers(service.name, service.labels, said)


async def _patiently(service: Service, rows: Sequence[Row]) -> list[Prediction | None]:
    """What the service says; while it is busy, waits and asks again. Raises Busy when that takes too long."""
    loop = asyncio.get_running_loop()
    end = loop.time() + _PATIENCE
    while True:
        try:
            return await service.see(rows)
        except Busy as busy:
            if loop.time() + busy.seconds > end:
                raise
            await asyncio.sleep(max(busy.seconds, 0.05))


def _answers(service: Service, said: Sequence[Prediction | None], words: bool) -> Answers:
    """To be kept: without embeddings, and for a file without words."""
    lean = [one and one._replace(embedding=None, words=one.words if words else None) for one in said]
    return Answers(service.name, service.labels, lean)
