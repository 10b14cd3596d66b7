"""A model in a process of its own: it loads while the server starts and computes while it answers."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import signal
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from multitask.common.errors import InputError
from multitask.common.shell import show_messages

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from multitask.data.labels import LabelSpace
    from multitask.inference.predictor import Predictor
    from multitask.serving.batcher import Item

KINDS = ("predict", "embed", "see")  # a row's JSON; an embedding (D,); a Prediction with all that it can hold


class Failure(NamedTuple):
    """Why a row has no answer."""

    reason: str


class WorkerEnded(ChildProcessError):
    """The model's process has ended; the rows it was given have no answers."""


class Worker:
    """Starts a process that calls `load`, which must be picklable, and answers batches of rows."""

    def __init__(self, load: Callable[[], Predictor]):
        # not a fork: the server has threads by the time that a second model is asked for
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, load), daemon=True)
        self.process.start()
        theirs.close()
        self.thread = ThreadPoolExecutor(1, "engine")
        self._labels: LabelSpace | None = None

    def labels(self) -> LabelSpace:
        """The labels, once the model is loaded. Raises InputError if it can't be loaded, or WorkerEnded."""
        if self._labels is None:
            found = self._receive()
            if isinstance(found, InputError):
                raise found
            self._labels = found
        return self._labels

    async def run(self, items: Sequence[Item]) -> list[Any]:
        """The answer to each item (see KINDS), or a Failure. Raises WorkerEnded."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, self._ask, items)

    def close(self) -> None:
        """End the process. It is killed if it does not end within a second."""
        self.pipe.close()
        self.process.join(1)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.thread.shutdown(wait=False)

    def _ask(self, items: Sequence[Item]) -> list[Any]:
        try:
            self.pipe.send(items)
        except OSError:
            raise WorkerEnded(self.why()) from None
        return self._receive()

    def _receive(self) -> Any:
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            raise WorkerEnded(self.why()) from None

    def why(self) -> str:
        """A message that says how the process ended."""
        self.process.join(1)
        code = self.process.exitcode
        how = "" if code is None else f" (signal {-code})" if code < 0 else f" (exit status {code})"
        return f"the model's process has ended{how}"


def _serve(pipe: Any, load: Callable[[], Predictor]) -> None:
    """The process: load the model, send its labels, then answer batches until the pipe is closed."""
    show_messages()
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; the server says when it is over
        signal.signal(number, signal.SIG_IGN)
    try:
        predictor = load()
        predictor.predict(["warm"])  # what libraries do at their first call
        pipe.send(predictor.labels)
        while True:
            pipe.send(answer_batch(predictor, pipe.recv()))
    except InputError as error:
        pipe.send(error)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass


def answer_batch(predictor: Predictor, items: Sequence[Item]) -> list[Any]:
    """The answer to each item. If a batch fails, each row is retried alone, so that one bad row does not fail
    the others."""
    try:
        return _together(predictor, items)
    except Exception as error:
        if len(items) == 1:
            logger.warning(traceback.format_exc())
            return [Failure(f"the model failed on this text: {type(error).__name__}")]
        return [answer for item in items for answer in answer_batch(predictor, [item])]


def _together(predictor: Predictor, items: Sequence[Item]) -> list[Any]:
    from multitask.inference.writers import json_line

    kinds = {item.kind for item in items}
    found = predictor.predict_examples(
        [item.row for item in items], embeddings=kinds != {"predict"}, words="see" in kinds
    )
    made: list[Any] = []
    for item, said in zip(items, found):
        if item.kind == "predict":
            made.append(json_line(item.row, said._replace(embedding=None)).strip())
        else:
            made.append(said.embedding if item.kind == "embed" else said)
    return made
